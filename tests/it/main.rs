//! Whole paths, as people use them: the real binary, real sockets, real files, real clients.

mod access;
mod airflow;
mod auto_pools;
mod bad_input;
mod blob_events;
mod broker_tls;
mod chores;
mod clients;
mod commands;
mod examples;
mod nodes;
mod packages;
mod queues;
mod quickstart;
mod random_requests;
mod refusals;
mod rest;
mod signing;
mod stack;
mod survival;
mod tasks;
