//! The agent as its dispatcher sees it: real broker, real blobs, real processes, the other side played by hand.

mod chores;
mod deliveries;
mod files;
mod packages;
mod processes;
mod roles;
mod stage;
mod survival;
