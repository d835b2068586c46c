//! Decides how many nodes a pool has, and makes and removes them.
