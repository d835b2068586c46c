//! A host: one program of a function and what it speaks, one event at a time.

use std::{
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{
    function::{Function, FunctionSpec, Runtime},
    spec::Package,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    context::NodeContext,
    off_loop::off_loop,
    packages,
    process::environment::Environment,
    warm::{
        event::{ANSWER_BYTES_MAX, Answered, Event, Failure, Said, too_large},
        http_program::HttpProgram,
        lambda::RuntimeApi,
        lines::Lines,
        program::{self, End, Program, Programs, Start},
    },
};

/// A program that is not ready for its first event after this long is ended.
const INIT_MAX: Duration = Duration::from_secs(60);
/// Period of looks at a busy program's memory and streams.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// The command of runtime `lambda` where the function has none and its package no `bootstrap`.
const LAMBDA_COMMAND: &str = "python3 -m awslambdaric $_HANDLER";
/// Stands for the function's handler in its command line.
const HANDLER: &str = "$_HANDLER";
const BOOTSTRAP: &str = "bootstrap";

enum Wire {
    Lambda(RuntimeApi),
    Lines(Box<Lines>),
    Http(HttpProgram),
}

/// A program that is ready for an event.
pub struct Host {
    program: Program,
    wire: Wire,
    is_broken: bool,
}

struct Prepared {
    command_line: String,
    environment: Environment,
    folder: PathBuf,
    run: contract::ids::RunId,
    directory: Option<PathBuf>,
}

/// Deploys the package and makes everything that a program needs to start.
async fn prepare(context: &Arc<NodeContext>, function: &Function) -> Result<Prepared, Failure> {
    let spec = &function.spec;
    let directory = match spec.package_key() {
        None => None,
        Some(key) => {
            let application = function
                .name
                .as_str()
                .parse()
                .map_err(|_| Failure::lasting("FunctionPackageFailed", "the function's name is no name".to_owned()))?;
            let package = Package { application, version: None, is_default: true, blob: Some(key) };
            let deployed = Box::pin(packages::deploy(context, &[package])).await.map_err(|fault| {
                let reason = fault.details.iter().find(|(name, _)| name == "Reason").map_or("", |(_, reason)| reason.as_str());
                Failure::new("FunctionPackageFailed", format!("the function's package cannot be deployed on the node: {reason}"))
            })?;
            deployed.first().map(|deployed| deployed.folder().to_owned())
        }
    };
    let (folder, run) = program::folder(context).await?;
    let bootstrap = directory.as_ref().map(|directory| directory.join(BOOTSTRAP));
    let has_bootstrap = match bootstrap {
        Some(bootstrap) => off_loop(move || bootstrap.is_file()).await.unwrap_or(false),
        None => false,
    };
    let command_line = match (&spec.command_line, spec.runtime) {
        (Some(command_line), _) => command_line.clone(),
        (None, _) if has_bootstrap => format!("./{BOOTSTRAP}"),
        (None, _) => LAMBDA_COMMAND.to_owned(),
    };
    let command_line = command_line.replace(HANDLER, spec.handler.as_deref().unwrap_or_default());
    let mut environment = Environment::new(&context.facts, None, &folder, &spec.environment_settings);
    for (name, value) in variables(function) {
        environment.set(name, value);
    }
    environment.set("LAMBDA_TASK_ROOT", directory.clone().unwrap_or_else(|| folder.join("wd")));
    Ok(Prepared { command_line, environment, folder, run, directory })
}

/// The variables that programs for AWS Lambda expect, for all runtimes alike.
fn variables(function: &Function) -> Vec<(&'static str, String)> {
    let name = function.name.to_string();
    let memory = function.spec.memory_mib.unwrap_or(1024).to_string();
    vec![
        ("_HANDLER", function.spec.handler.clone().unwrap_or_default()),
        ("AWS_LAMBDA_FUNCTION_VERSION", function.version.to_string()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/piecework/functions/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("version-{}", function.version)),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name),
    ]
}

impl Host {
    /// Starts a program and waits until it can take an event.
    pub async fn start(context: &Arc<NodeContext>, programs: &Programs, function: &Function) -> Result<Host, Failure> {
        let Prepared { command_line, mut environment, folder, run, directory } = Box::pin(prepare(context, function)).await?;
        let runtime = function.spec.runtime;
        let local = |error: std::io::Error| Failure::new("NodeError", format!("no port can be opened for the function's program: {error}"));
        let (mut api, mut port) = (None, None);
        match runtime {
            Runtime::Lambda => {
                let bound = RuntimeApi::open(&function.name).await.map_err(local)?;
                environment.set("AWS_LAMBDA_RUNTIME_API", bound.address().to_string());
                api = Some(bound);
            }
            Runtime::Http => {
                let free = HttpProgram::free_port().await.map_err(local)?;
                environment.set("PORT", free.to_string());
                port = Some(free);
            }
            Runtime::Lines | Runtime::Exec => {}
        }
        let start = Start { command_line, environment, folder, directory, has_pipes: runtime == Runtime::Lines };
        let (program, pipes) = Program::start(context, programs, run, start)?;
        let ready = async {
            match (api, port, pipes) {
                (Some(mut api), ..) => api.ready().await.map(|()| Wire::Lambda(api)),
                (_, Some(port), _) => HttpProgram::connect(port).await.map(Wire::Http),
                (.., Some(pipes)) => match pipes.await {
                    Ok(pipes) => Lines::new(pipes).map(|lines| Wire::Lines(Box::new(lines))).map_err(local),
                    // The program could not be started; its end says why.
                    Err(_) => std::future::pending().await,
                },
                _ => Err(Failure::lasting("NodeError", "the runtime has no host".to_owned())),
            }
        };
        let wire = tokio::select! {
            biased;
            wire = ready => wire?,
            end = program.ended() => return Err(init_failure(&end)),
            () = tokio::time::sleep(INIT_MAX) => {
                let message = format!("the program was not ready for its first event within {} seconds", INIT_MAX.as_secs());
                return Err(Failure::new("FunctionInitFailed", message));
            }
        };
        Ok(Host { program, wire, is_broken: false })
    }

    /// Whether it can take another event.
    pub fn is_usable(&self) -> bool {
        !self.is_broken && self.program.end().is_none()
    }

    /// Hands over one event and waits for what comes of it; the program is ended at the deadline.
    pub async fn call(&mut self, function: &Function, event: &Event) -> Result<Answered, Failure> {
        let limit = Duration::from_millis(function.spec.timeout.as_ms());
        let started = Instant::now();
        let Host { program, wire, is_broken } = self;
        // Until it is known to be well: a caller that goes away in between leaves a program with half an answer.
        *is_broken = true;
        let ends = if matches!(wire, Wire::Lines(_)) { Ends::AfterAnswer } else { Ends::Crash };
        let said = async {
            match wire {
                Wire::Lambda(api) => api.call(event, limit).await,
                Wire::Lines(lines) => lines.call(event).await,
                Wire::Http(http) => http.call(&function.name, event).await,
            }
        };
        let said = guard(program, &function.spec, ends, said).await;
        let duration = started.elapsed();
        match said {
            Ok(Said::Answer { body, content_type }) => {
                *is_broken = false;
                Ok(Answered { body, content_type, duration, is_cold: false })
            }
            Ok(Said::Error { message, body }) => {
                *is_broken = false;
                Err(Failure { body: Some(body), duration, ..Failure::new("FunctionError", message) })
            }
            Ok(Said::Refused(failure)) => {
                *is_broken = false;
                Err(failure)
            }
            Ok(Said::Broken(failure)) | Err(failure) => {
                program.kill();
                Err(Failure { duration, ..failure })
            }
            Ok(Said::Gone) => Err(Failure::new("FunctionCrashed", "the program ended without an answer".to_owned())),
        }
    }
}

/// What the end of a program means while its answer is awaited.
#[derive(PartialEq, Eq)]
enum Ends {
    /// It will not answer any more.
    Crash,
    /// Its answer may still be in the pipe.
    AfterAnswer,
}

/// Waits for an answer, the end of the program, its deadline or too much memory.
async fn guard(program: &Program, spec: &FunctionSpec, ends: Ends, said: impl Future<Output = Said>) -> Result<Said, Failure> {
    let limit = Duration::from_millis(spec.timeout.as_ms());
    let memory_max = spec.memory_mib.map(|mib| u64::from(mib) * 1024 * 1024);
    let mut looks = interval(LOOK_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = async {
        tokio::pin!(said);
        loop {
            tokio::select! {
                biased;
                said = &mut said => return match said {
                    Said::Gone => Err(crash(&program.ended().await)),
                    other => Ok(other),
                },
                end = ended(program, &ends) => return Err(if end.is_unstarted { init_failure(&end) } else { crash(&end) }),
                _ = looks.tick() => {
                    program.cut_streams().await;
                    if let (Some(most), Some(bytes)) = (memory_max, program.resident_bytes())
                        && bytes > most
                    {
                        program.kill();
                        let message = format!("the program used {} MiB of memory, more than its {} MiB, and was ended", bytes >> 20, most >> 20);
                        return Err(Failure::new("FunctionOutOfMemory", message));
                    }
                }
            }
        }
    };
    match timeout(limit, waiting).await {
        Ok(said) => said,
        Err(_) => {
            program.kill();
            let message = format!("the function did not answer within {} ms, and its program was ended", limit.as_millis());
            Err(Failure::new("FunctionTimedOut", message))
        }
    }
}

/// Waits for an end that lets no answer follow.
async fn ended(program: &Program, ends: &Ends) -> End {
    let end = program.ended().await;
    if end.is_unstarted || *ends == Ends::Crash { end } else { std::future::pending().await }
}

fn with_last_words(message: String, end: &End) -> String {
    if end.last_words.is_empty() { message } else { format!("{message}; its last output:\n{}", end.last_words) }
}

fn crash(end: &End) -> Failure {
    Failure::new("FunctionCrashed", with_last_words(format!("the program ended without an answer: {}", end.how), end))
}

fn init_failure(end: &End) -> Failure {
    let what = if end.is_unstarted { "the program cannot be started" } else { "the program ended before it was ready for an event" };
    Failure::new("FunctionInitFailed", with_last_words(format!("{what}: {}", end.how), end))
}

/// Runs a program for one event alone.
pub async fn exec(context: &Arc<NodeContext>, programs: &Programs, function: &Function, event: Event) -> Result<Answered, Failure> {
    let Prepared { command_line, mut environment, folder, run, directory } = Box::pin(prepare(context, function)).await?;
    environment.set("PIECEWORK_INVOCATION", event.id.clone());
    if let Some(traceparent) = &event.traceparent {
        environment.add_trace(traceparent);
    }
    let started = Instant::now();
    let (program, pipes) = Program::start(context, programs, run, Start { command_line, environment, folder, directory, has_pipes: true })?;
    let said = async {
        let pipes = match pipes {
            Some(pipes) => pipes.await.ok(),
            None => None,
        };
        let ends = pipes.and_then(|pipes| Some((ChildStdin::from_std(pipes.stdin).ok()?, ChildStdout::from_std(pipes.stdout).ok()?)));
        let Some((mut stdin, stdout)) = ends else { return Said::Gone };
        let write = async {
            // A program may answer without reading its event.
            stdin.write_all(&event.body).await.ok();
            drop(stdin);
        };
        let mut body = Vec::new();
        let mut reader = stdout.take(ANSWER_BYTES_MAX as u64 + 1);
        let ((), read) = tokio::join!(write, reader.read_to_end(&mut body));
        if body.len() > ANSWER_BYTES_MAX {
            return Said::Broken(too_large());
        }
        match read {
            Ok(_) if program.ended().await.is_success => {
                Said::Answer { body, content_type: event.content_type.clone().unwrap_or_default() }
            }
            Ok(_) => Said::Gone,
            Err(error) => Said::Broken(Failure::new("NodeError", format!("the program's answer cannot be read: {error}"))),
        }
    };
    let said = guard(&program, &function.spec, Ends::AfterAnswer, said).await;
    let duration = started.elapsed();
    match said {
        Ok(Said::Answer { body, content_type }) => Ok(Answered { body, content_type, duration, is_cold: true }),
        Ok(Said::Broken(failure) | Said::Refused(failure)) | Err(failure) => Err(Failure { duration, ..failure }),
        Ok(Said::Gone | Said::Error { .. }) => Err(Failure::new("FunctionCrashed", "the program ended without an answer".to_owned())),
    }
}
