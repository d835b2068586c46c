//! The command line of Piecework; starts any part.
fn main() {}
