//! The domain: pools, jobs, schedules, tasks, nodes and applications as rules, store, engine and API share them.
//!
//! Data with the rules that need nothing else; imports the contract alone.

pub mod application;
pub mod auto_pool;
pub mod auto_scale;
pub mod condition;
pub mod document;
pub mod health;
pub mod job;
pub mod job_tasks;
pub mod node;
pub mod pool;
pub mod property;
pub mod refusal;
pub mod schedule;
pub mod task;
pub mod task_document;
pub mod usage;
