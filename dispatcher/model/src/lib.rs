//! The domain types that scheduler, store, engine and API share: pools, jobs, schedules, tasks, nodes and applications.
//!
//! Plain data and the rules that need nothing else. Depends on `contract` only.

pub mod application;
pub mod auto_pool;
pub mod auto_scale;
pub mod condition;
pub mod document;
pub mod function;
pub mod health;
pub mod job;
pub mod job_tasks;
pub mod node;
pub mod pool;
pub mod property;
pub mod refusal;
pub mod schedule;
pub mod submission;
pub mod task;
pub mod task_document;
pub mod trigger;
pub mod usage;
