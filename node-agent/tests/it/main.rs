//! The node agent against a real broker, real blobs and real processes, with a scripted dispatcher.

mod deliveries;
mod disk;
mod files;
mod functions;
mod harness;
mod hostile;
mod job_tasks;
mod packages;
mod processes;
mod rights;
mod roles;
mod survival;
mod wide;
