//! Whole paths, as people use them: the real binary, real sockets, real files, real clients.

mod examples;
mod quickstart;
mod rest;
mod stack;
mod survival;
mod tasks;
