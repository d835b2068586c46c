//! The command line: one file for each noun, one function for each verb, which parses, calls and prints.

mod app;
mod dead;
mod file;
mod function;
mod job;
mod node;
mod parts;
mod pool;
mod publisher;
mod queue;
mod run;
mod task;
mod trigger;

use std::{ffi::OsStr, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    bench::{self, BenchArgs},
    demo::{self, DemoArgs},
    doctor::{self, DoctorArgs},
    exit_codes::{self, FAILED},
    map::{self, MapArgs},
    output::{self, Output},
    secrets, tracer,
    up::{self, UpArgs},
};

/// Azure Batch that you run yourself, on RabbitMQ queues and any S3 store, in one binary
#[derive(Debug, Parser)]
#[command(name = "piecework", version, after_help = exit_codes::HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Data as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Log filter for stderr, such as info or dispatcher=debug,warn
    #[arg(long, global = true, value_name = "FILTER", env = "PIECEWORK_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(UpArgs),
    Run(run::RunArgs),
    Map(MapArgs),
    Demo(DemoArgs),
    Doctor(DoctorArgs),
    Bench(BenchArgs),
    /// Pools of nodes
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Nodes of a pool
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Jobs
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Application packages
    #[command(subcommand)]
    App(app::AppCommand),
    /// Functions of a pool
    #[command(subcommand)]
    Function(function::FunctionCommand),
    /// Rules that start work when objects or messages come
    #[command(subcommand)]
    Trigger(trigger::TriggerCommand),
    /// Queues of the broker
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Messages that were refused, or failed for good
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Users of the broker that may add work
    #[command(subcommand)]
    Publisher(publisher::PublisherCommand),
    /// Tasks of a job
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Files of a task
    #[command(subcommand)]
    File(file::FileCommand),
    Agent(parts::AgentArgs),
    Dispatcher(parts::DispatcherArgs),
    Autoscaler(parts::AutoscalerArgs),
    #[command(hide = true)]
    TraceTile(tracer::TileArgs),
    #[command(hide = true)]
    TraceMerge(tracer::MergeArgs),
    /// Ends what an agent leaves behind
    #[command(hide = true)]
    Guardian,
}

impl Command {
    /// Whether a single thread is enough: an agent is one of many on its machine, and a tile is rendered by one thread.
    fn is_small(&self) -> bool {
        matches!(self, Command::Agent(_) | Command::TraceTile(_) | Command::TraceMerge(_))
    }

    fn log_default(&self) -> &'static str {
        match self {
            Command::Up(_) | Command::Agent(_) | Command::Dispatcher(_) | Command::Autoscaler(_) => "info",
            _ => "error",
        }
    }
}

/// Parses, runs, and turns the result into an exit code.
pub(crate) fn main() -> ExitCode {
    // The guardian must stay small and start nothing: it is left before anything else is set up.
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new("guardian")) {
        return node_agent::guardian();
    }
    let cli = Cli::parse();
    secrets::take_variables();
    let filter = EnvFilter::builder().parse_lossy(log_filter(cli.log.as_deref().unwrap_or(cli.command.log_default())));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(output::is_terminal()).init();
    let result = runtime(&cli.command).and_then(|runtime| {
        let result = runtime.block_on(run(cli));
        // Blocking calls that are still under way must not delay the end.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(code) => ExitCode::from(code),
        // The reader of our output closed the pipe, so it needs no more.
        Err(error) if error.chain().any(is_broken_pipe) => ExitCode::from(exit_codes::OK),
        Err(error) => {
            report(&error);
            ExitCode::from(exit_codes::of(&error).max(FAILED))
        }
    }
}

/// The log filter. Libraries that log ordinary events as errors, such as a closed connection, are included only where
/// the filter names them: our own code logs what becomes of connections.
fn log_filter(given: &str) -> String {
    let quiet = ["lapin", "s3s"].into_iter().filter(|library| !given.contains(library));
    quiet.map(|library| format!("{library}=off,")).collect::<String>() + given
}

fn runtime(command: &Command) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder =
        if command.is_small() { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    Ok(builder.enable_all().build()?)
}

async fn run(cli: Cli) -> anyhow::Result<u8> {
    let out = output::choose(cli.json);
    let out: &dyn Output = out.as_ref();
    match cli.command {
        Command::Up(args) => up::run(args, out).await,
        Command::Run(args) => run::run(args).await,
        Command::Map(args) => map::run(args, out).await,
        Command::Demo(args) => demo::run(args, out).await,
        Command::Doctor(args) => doctor::run(args, out).await,
        Command::Bench(args) => bench::run(args, out).await,
        Command::Pool(command) => pool::run(command, out).await,
        Command::Node(command) => node::run(command, out).await,
        Command::Job(command) => job::run(command, out).await,
        Command::App(command) => app::run(command, out).await,
        Command::Function(command) => function::run(command, out).await,
        Command::Trigger(command) => trigger::run(command, out).await,
        Command::Queue(command) => queue::run(command, out).await,
        Command::Dead(command) => dead::run(command, out).await,
        Command::Publisher(command) => publisher::run(command, out).await,
        Command::Task(command) => task::run(command, out).await,
        Command::File(command) => file::run(command, out).await,
        Command::Agent(args) => parts::agent(args).await,
        Command::Dispatcher(args) => parts::dispatcher(args).await,
        Command::Autoscaler(args) => parts::autoscaler(args).await,
        Command::TraceTile(args) => tracer::tile(&args),
        Command::TraceMerge(args) => tracer::merge(&args),
        Command::Guardian => Ok(exit_codes::USAGE),
    }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn report(error: &anyhow::Error) {
    // A failure has its whole text; other errors are shown with their causes.
    match error.downcast_ref::<exit_codes::Failure>() {
        Some(failure) => eprintln!("error: {failure}"),
        None => eprintln!("error: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn noisy_libraries_are_heard_when_they_are_named() {
        assert_eq!(log_filter("info"), "lapin=off,s3s=off,info");
        assert_eq!(log_filter("warn,lapin=debug"), "s3s=off,warn,lapin=debug");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_left_alone() {
        let cli = Cli::try_parse_from(["piecework", "run", "--", "ls", "--json", "-l"]).unwrap();
        assert!(!cli.json);
    }
}
