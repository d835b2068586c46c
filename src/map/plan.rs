//! Derives names, command line and task from each input.

use std::{
    collections::HashMap,
    path::{Component, Path},
    time::Duration,
};

use clients::blobs::{BlobError, Blobs};
use serde_json::{Value, json};

use super::{
    inputs::{Input, Source},
    item::Item,
    target::Target,
};
use crate::{
    command_line,
    exit_codes::{Failure, USAGE},
};

/// Validity of signed input URLs, the longest that S3 allows.
const SIGNED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Characters of a file's name on the node at most.
const NODE_NAME_MAX: usize = 100;

/// Settings that all tasks of one `map` share.
pub(crate) struct Plan {
    pub(crate) job: String,
    /// The bucket for inputs and outputs that are local files.
    pub(crate) bucket: String,
    pub(crate) command: Vec<String>,
    pub(crate) target: Target,
    /// Whether the task's stdout is the result, even if it is empty.
    pub(crate) keeps_stdout: bool,
}

/// An item that cannot be processed, with the reason.
pub(crate) type Refused = (Item, String);

impl Plan {
    /// All items, and those that cannot be processed with the reason; inputs whose outputs would overwrite each other
    /// are an error.
    pub(crate) fn items(&self, inputs: Vec<Input>, template: &str) -> anyhow::Result<(Vec<Item>, Vec<Refused>)> {
        let mut outputs: HashMap<String, String> = HashMap::new();
        let (mut items, mut refused) = (Vec::with_capacity(inputs.len()), vec![]);
        for (number, Input { source, name, problem }) in (1..).zip(inputs) {
            let id = format!("task-{number:07}");
            let output = match problem.map_or_else(|| output_name(&name, template), Err) {
                Ok(output) => output,
                Err(reason) => {
                    refused.push((Item { id, source, name, output: String::new() }, reason));
                    continue;
                }
            };
            let shown = match &source {
                Source::File(path) => path.display().to_string(),
                Source::Blob { bucket, key } => format!("s3://{bucket}/{key}"),
            };
            if let (false, Some(other)) = (matches!(self.target, Target::Print), outputs.insert(output.clone(), shown.clone())) {
                return Err(Failure::usage(format!("{other} and {shown} would both become {output}; give another --name")).into());
            }
            items.push(Item { id, source, name, output });
        }
        match refused.first() {
            // Then the command line is to blame rather than the inputs.
            Some((_, reason)) if items.is_empty() => Err(Failure::usage(reason.clone()).into()),
            _ => Ok((items, refused)),
        }
    }

    /// Whether an empty result means that the command wrote no output.
    pub(crate) fn needs_output(&self) -> bool {
        !self.keeps_stdout && !names_output(&self.command)
    }

    /// Prefix of this map's blobs.
    pub(crate) fn prefix(&self) -> String {
        format!("maps/{}/", self.job)
    }

    /// The key of an item's uploaded input.
    pub(crate) fn input_key(&self, item: &Item) -> String {
        format!("{}in/{}/{}", self.prefix(), item.id, node_name(&item.name))
    }

    /// The key of an item's output on its way to a local folder.
    pub(crate) fn output_key(&self, item: &Item) -> String {
        format!("{}out/{}", self.prefix(), item.id)
    }

    /// The task's body for the API.
    pub(crate) async fn task(&self, item: &Item, blobs: &Blobs) -> Result<Value, BlobError> {
        let staged = format!("in/{}", node_name(&item.name));
        let resource = match &item.source {
            Source::File(_) => {
                json!({ "storageContainerUrl": format!("s3://{}/{}in/{}", self.bucket, self.prefix(), item.id), "filePath": "in" })
            }
            Source::Blob { bucket, key } => {
                json!({ "httpUrl": blobs.presign_get(bucket, key, SIGNED_FOR).await?, "filePath": staged })
            }
        };
        let written = format!("out-{}", node_name(&item.output));
        let words = substitute(&self.command, &[("{in}", &staged), ("{out}", &written)], &item.name);
        let mut task = json!({
            "id": item.id,
            "commandLine": command_line::of(&words),
            "resourceFiles": [resource],
        });
        let destination = match &self.target {
            Target::Print => None,
            Target::Folder(_) => Some((format!("s3://{}/{}out", self.bucket, self.prefix()), item.id.clone())),
            Target::Blobs(place) => Some((format!("s3://{}/{}", place.bucket, place.prefix.trim_end_matches('/')), item.output.clone())),
        };
        if let Some((container, path)) = destination {
            // A command without {out} writes to its stdout, as a filter does.
            let pattern = if names_output(&self.command) { written } else { "../stdout.txt".to_owned() };
            task["outputFiles"] = json!([{
                "filePattern": pattern,
                "destination": { "container": { "containerUrl": container.trim_end_matches('/'), "path": path } },
                "uploadOptions": { "uploadCondition": "tasksuccess" },
            }]);
        }
        Ok(task)
    }
}

fn names_output(command: &[String]) -> bool {
    command.iter().any(|word| word.contains("{out}"))
}

/// Refuses a command whose results would be lost: it names files after its input, but none that is kept.
pub(crate) fn check(command: &[String], has_out: bool, keeps_stdout: bool) -> Result<(), Failure> {
    if !has_out || keeps_stdout || names_output(command) {
        return Ok(());
    }
    let named = ["{stem}", "{name}", "{ext}"].into_iter().find(|part| command.iter().any(|word| word.contains(part)));
    let Some(named) = named else { return Ok(()) };
    let what = format!("the command names {named} but not {{out}}: a file that it writes under a name of its own is not kept");
    let hint = "write {out} where the command names its result, and give the result's name by --name, such as --name '{stem}.ogg'; \
                with --stdout the result is what the command prints";
    Err(Failure::new(USAGE, what, hint))
}

/// Parts of an input's name that a template may hold.
const NAME_PARTS: [&str; 3] = ["{name}", "{stem}", "{ext}"];

/// Refuses a template for outputs' names with a placeholder that nothing fills in.
pub(crate) fn check_name(template: &str) -> Result<(), Failure> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((word, behind)) = after.split_once('}') else { break };
        let placeholder = format!("{{{word}}}");
        if !NAME_PARTS.contains(&placeholder.as_str()) {
            let what = format!("--name {template:?} holds {placeholder}, which is not known");
            return Err(Failure::new(USAGE, what, "the parts of an input's name are {name}, {stem} and {ext}"));
        }
        rest = behind;
    }
    Ok(())
}

/// The command with its placeholders filled in; a command that names no part of the input gets it as its last word.
fn substitute(command: &[String], files: &[(&str, &str)], name: &str) -> Vec<String> {
    let (file, stem, ext) = parts(name);
    let is_script = command.len() == 1;
    let mut all: Vec<(&str, &str)> = files.to_vec();
    all.extend([("{name}", file), ("{stem}", stem), ("{ext}", ext)]);
    let names_input = command.iter().any(|word| ["{in}", "{name}", "{stem}", "{ext}"].iter().any(|part| word.contains(part)));
    let is_shell = is_script && command[0].contains(char::is_whitespace);
    let fill = |word: &String| {
        // One pass over the word, so that a name which looks like a placeholder stays a name.
        let (mut filled, mut rest) = (String::new(), word.as_str());
        while let Some(start) = rest.find('{') {
            filled.push_str(&rest[..start]);
            rest = &rest[start..];
            match all.iter().find(|(placeholder, _)| rest.starts_with(placeholder)) {
                Some((placeholder, value)) => {
                    if is_shell {
                        filled.push_str(&command_line::quote(value))
                    } else {
                        filled.push_str(value)
                    }
                    rest = &rest[placeholder.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        filled + rest
    };
    let mut words: Vec<String> = command.iter().map(fill).collect();
    if !names_input && let Some((_, staged)) = files.first() {
        if is_shell { words[0] = format!("{} {}", words[0], command_line::quote(staged)) } else { words.push((*staged).to_owned()) }
    }
    words
}

/// File name, stem and extension of a name that may hold folders.
fn parts(name: &str) -> (&str, &str, &str) {
    let file = name.rsplit('/').next().unwrap_or(name);
    match file.rsplit_once('.') {
        Some((stem, ext)) if !stem.is_empty() => (file, stem, ext),
        _ => (file, file, ""),
    }
}

/// The output's name: the template filled in, in the input's folder.
fn output_name(name: &str, template: &str) -> Result<String, String> {
    let filled = substitute(&[template.to_owned(), String::new()], &[], name).swap_remove(0);
    let full = match name.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{filled}"),
        None => filled,
    };
    let is_sound =
        !full.is_empty() && !full.ends_with('/') && Path::new(&full).components().all(|part| matches!(part, Component::Normal(_)));
    if is_sound { Ok(full) } else { Err(format!("{name} would become {full:?}, which is no file below --out")) }
}

/// A file's name on the node: its own, with what shells, patterns and paths take for something else replaced.
fn node_name(name: &str) -> String {
    let file = parts(name).0;
    let safe: String = file.chars().map(|c| if c.is_ascii_alphanumeric() || "._-+=@".contains(c) { c } else { '_' }).collect();
    match safe.len().checked_sub(NODE_NAME_MAX) {
        // The end is kept, for it holds the extension.
        Some(surplus) if surplus > 0 => safe[surplus..].to_owned(),
        _ => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &[&str], name: &str) -> Vec<String> {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        substitute(&command, &[("{in}", "in/x"), ("{out}", "out-x")], name)
    }

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(words(&["ffmpeg", "-i", "{in}", "{stem}-{ext}", "{out}"], "a/b.c.mov"), ["ffmpeg", "-i", "in/x", "b.c-mov", "out-x"]);
        assert_eq!(words(&["echo", "{name}", "{other}", "{"], "{in}.txt"), ["echo", "{in}.txt", "{other}", "{"]);
    }

    #[test]
    fn a_command_that_names_no_input_gets_it_last() {
        assert_eq!(words(&["wc", "-l"], "a"), ["wc", "-l", "in/x"]);
        assert_eq!(words(&["wc -l"], "a"), ["wc -l in/x"]);
    }

    #[test]
    fn names_in_scripts_are_quoted() {
        assert_eq!(words(&["echo {name} > {out}"], "it's; rm -rf x"), [r"echo 'it'\''s; rm -rf x' > out-x"]);
    }

    #[test]
    fn outputs_keep_folders_and_stay_below_the_target() {
        assert_eq!(output_name("a/b.mov", "{stem}.mp4").unwrap(), "a/b.mp4");
        assert_eq!(output_name(".hidden", "{stem}.{ext}x").unwrap(), ".hidden.x");
        for template in ["{stem}.mp4", "{name}", "x", "a{b", "{ext}}"] {
            check_name(template).unwrap();
        }
        for (template, unknown) in [("{stem}.{bogus}", "{bogus}"), ("{}", "{}"), ("{in}.txt", "{in}"), ("{Stem}", "{Stem}")] {
            let failure = check_name(template).unwrap_err().to_string();
            assert!(failure.contains(&format!("holds {unknown},")) && failure.contains("{name}, {stem} and {ext}"), "{failure}");
        }
        for template in ["", "../{name}", "/etc/{name}", "x/"] {
            assert!(output_name("b.mov", template).is_err(), "{template}");
        }
    }

    #[test]
    fn outputs_that_would_overwrite_each_other_are_refused() {
        let input = |name: &str| Input { source: Source::File(name.into()), name: name.into(), problem: None };
        let plan = |target| Plan { job: "j".into(), bucket: "b".into(), command: vec![], target, keeps_stdout: false };
        let both = || vec![input("a.mov"), input("a.avi")];
        let error = plan(Target::Folder("out".into())).items(both(), "{stem}.mp4").unwrap_err();
        assert!(error.to_string().contains("a.mov and a.avi"), "{error}");
        assert_eq!(plan(Target::Print).items(both(), "{stem}.mp4").unwrap().0.len(), 2);
    }

    #[test]
    fn an_input_that_cannot_be_used_is_refused_alone_and_a_template_that_fits_none_is_an_error() {
        let input = |name: &str, problem: Option<&str>| Input {
            source: Source::File(name.into()),
            name: name.into(),
            problem: problem.map(str::to_owned),
        };
        let plan = Plan { job: "j".into(), bucket: "b".into(), command: vec![], target: Target::Folder("out".into()), keeps_stdout: false };
        let given = vec![input("a.mov", None), input("../b.mov", None), input("c", Some("its name is not UTF-8")), input("d.mov", None)];
        let (items, refused) = plan.items(given, "{name}").unwrap();
        let ids = |items: &[Item]| items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&items), ["task-0000001", "task-0000004"]);
        let reasons: Vec<_> = refused.iter().map(|(item, reason)| (item.name.as_str(), reason.as_str())).collect();
        assert_eq!(
            reasons,
            [("../b.mov", "../b.mov would become \"../b.mov\", which is no file below --out"), ("c", "its name is not UTF-8")]
        );
        assert!(plan.items(vec![input("a.mov", None)], "x/").is_err());
    }

    #[test]
    fn a_command_that_names_a_result_which_is_not_kept_is_refused() {
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let lost = command(&["ffmpeg", "-i", "{in}", "{stem}.ogg"]);
        let failure = check(&lost, true, false).unwrap_err();
        assert!(failure.to_string().contains("{stem}") && failure.to_string().contains("{out}"), "{failure}");
        check(&lost, true, true).unwrap();
        check(&lost, false, false).unwrap();
        check(&command(&["wc", "-l", "{in}"]), true, false).unwrap();
        check(&command(&["ffmpeg", "-i", "{in}", "-title", "{stem}", "{out}"]), true, false).unwrap();
    }

    #[test]
    fn names_on_the_node_are_harmless_and_keep_their_extension() {
        assert_eq!(node_name("a/b c*[1].mov"), "b_c__1_.mov");
        assert!(node_name(&format!("{}.mov", "x".repeat(300))).ends_with("x.mov"));
    }
}
