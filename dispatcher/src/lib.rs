//! The truth about pools, nodes, jobs and tasks, and the Azure Batch door.
