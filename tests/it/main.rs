//! Whole paths, as people use them.
