//! Providers make and remove nodes: one trait, and an implementation for each kind of machine.

mod command;
mod error;
mod process;
mod provider;

pub use self::{
    command::{Command, CommandSettings},
    error::{ProviderError, chain},
    process::{Process, ProcessSettings},
    provider::{Instance, NodeProvider},
};
