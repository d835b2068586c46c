//! Runs what the pool's queue delivers and keeps nothing worth keeping.
