//! The programs of `examples/publish`, one a language, as their README starts them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    rest::Rest,
    stack::{Stack, skip, text},
};

/// A program with the arguments that come before the broker's URL, and how to find out whether the machine has its libraries.
struct Program {
    /// How the program calls itself.
    language: &'static str,
    command: Vec<String>,
    probe: Vec<String>,
}

impl Program {
    fn new(language: &'static str, command: &[&str], probe: &[&str]) -> Program {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Program { language, command: owned(command), probe: owned(probe) }
    }

    fn start(words: &[String], more: &[&str], scratch: &Path) -> std::io::Result<Output> {
        let modules = std::env::var("PIECEWORK_TEST_NODE_MODULES").unwrap_or_default();
        Command::new(&words[0])
            .args(&words[1..])
            .args(more)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/publish"))
            .env("NODE_PATH", modules)
            .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")])
            .env("GOCACHE", scratch.join("go-cache"))
            .output()
    }

    fn is_there(&self, scratch: &Path) -> bool {
        Program::start(&self.probe, &[], scratch).is_ok_and(|output| output.status.success())
    }
}

/// The Rust program is built by `cargo test --workspace`, beside the binary.
fn rust_program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_piecework")).with_file_name("examples").join("publish")
}

fn programs() -> Vec<Program> {
    let python = std::env::var("PIECEWORK_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let rust = rust_program();
    let rust = rust.to_str().unwrap();
    let java = "/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar:/usr/share/java/gson.jar";
    vec![
        Program::new("python", &[&python, "publish.py"], &[&python, "-c", "import pika"]),
        Program::new("node", &["node", "publish.js"], &["node", "-e", "require('amqplib')"]),
        Program::new("go", &["go", "run", "publish.go"], &["go", "list", "github.com/rabbitmq/amqp091-go"]),
        Program::new(
            "java",
            &["java", "-cp", java, "Publish.java"],
            &["javap", "-cp", java, "com.rabbitmq.client.Channel", "com.google.gson.Gson"],
        ),
        Program::new("ruby", &["ruby", "publish.rb"], &["ruby", "-e", "require 'bunny'"]),
        Program::new("the shell", &["sh", "publish.sh"], &["sh", "-c", "command -v amqp-publish && command -v jq"]),
        Program::new("rust", &[rust], &["test", "-x", rust]),
    ]
}

/// The URL of a user who may do no more than the programs do; on RabbitMQ, where users belong to no virtual host, the stack's own.
fn publisher(stack: &Stack) -> String {
    if std::env::var_os("PIECEWORK_TEST_AMQP_URL").is_some() {
        return stack.ready.broker.clone();
    }
    let mut add = stack.command();
    add.args(["publisher", "add", "tester", "--pool", "work", "--submit", "--invoke", "echo", "--json"]);
    let output = add.output().unwrap();
    let (out, err) = text(&output);
    let added: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
    added["url"].as_str().unwrap_or_else(|| panic!("{out}")).to_owned()
}

#[test]
fn the_examples_submit_a_task_invoke_a_function_and_print_both_answers() {
    let name = "the_examples_submit_a_task_invoke_a_function_and_print_both_answers";
    let stack = Stack::start();
    let scratch = &stack.scratch();
    let (there, missing): (Vec<_>, Vec<_>) = programs().into_iter().partition(|program| program.is_there(scratch));
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(|program| program.language).collect();
        skip(name, &format!("examples/publish/README.md tells what these need: {}", missing.join(", ")));
    }
    Rest::new(&stack.ready).add_pool("work", 1, 1);
    let mut deploy = stack.command();
    deploy.args(["function", "deploy", "--pool", "work", "--name", "echo", "--runtime", "exec", "--command", "cat"]);
    assert!(deploy.output().unwrap().status.success());
    let publisher = publisher(&stack);
    for Program { language, command, .. } in there {
        let run = |url: &str, pool: &str| Program::start(&command, &[url, pool, "echo"], scratch).unwrap();
        let output = run(&publisher, "work");
        let (out, err) = text(&output);
        let (task, answer) = out.split_once('\n').unwrap_or_else(|| panic!("{language}: {out}\n{err}"));
        assert_eq!(task, format!("hello from {language}"), "{err}");
        assert_eq!(serde_json::from_str::<Value>(answer).unwrap(), json!({"name": language}), "{err}");
        assert!(output.status.success(), "{language}: {err}");
        let output = run(&stack.ready.broker, "nowhere");
        assert_eq!(output.status.code(), Some(1), "{language}: {output:?}");
        let (out, err) = text(&output);
        assert!((out + &err).contains("PoolNotFound"), "{language}: {output:?}");
    }
    stack.stop();
}
