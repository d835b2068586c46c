//! Modules import downwards only: no circle among the files of a crate.
//!
//! Read are `use` trees and paths that begin with `crate`, `super`, `self` or a child's name. Tests are left out.
//! A path counts for the file where it ends, so a name that `mod.rs` passes on counts for `mod.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    path::Path,
};

use super::{CRATES, read, root, sources};

/// Crate, file, and why those that it imports may import it.
const OWNERS: &[(&str, &str, &str)] = &[
    ("scheduler", "lib", "owns a pool's state, the core; each other file is some of its rules"),
    ("scaling", "formula", "is the formula itself; its steps share its faults, bounds and results"),
    ("embedded-broker", "core", "owns the state of all queues; each other file is a part of what it does"),
    ("embedded-broker", "journal", "owns the segments, and names what its parts read and write"),
    ("embedded-broker", "queue", "holds its messages that wait for a time, which go back into it"),
    ("embedded-broker", "channel", "holds the deadlines of its deliveries, which end it"),
    ("embedded-broker", "arguments", "names the arguments that its reader reads"),
    ("embedded-blobs", "objects", "owns the rows of objects; conditions and events are about them"),
    ("embedded-blobs", "files", "owns the folder of files, and starts what empties it"),
    ("embedded-blobs", "service/read", "one service: S3's copies read what S3's writes store"),
];

/// A module's names from the root of its crate, joined by slashes; the root is `lib`.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn name(module: &[String]) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("/") }
}

/// Words, `::` and single signs of a source text; comments and literals are left out.
fn tokens(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let raw = rest.trim_start_matches('b').strip_prefix('r').map(|raw| raw.bytes().take_while(|byte| *byte == b'#').count());
        at += match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'r' | b'b' if raw.is_some_and(|signs| rest.trim_start_matches('b')[1 + signs..].starts_with('"')) => {
                let end = format!("\"{}", "#".repeat(raw.unwrap_or_default()));
                let first = rest.find('"').unwrap_or_default() + 1;
                rest[first..].find(&end).map_or(rest.len(), |last| first + last + end.len())
            }
            b'"' => 1 + literal(&bytes[at + 1..], b'"'),
            // A lifetime has no closing quote after its first sign.
            b'\'' if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => 1 + literal(&bytes[at + 1..], b'\''),
            b':' if rest.starts_with("::") => {
                found.push("::");
                2
            }
            byte if is_word(&byte) => {
                let length = rest.bytes().take_while(is_word).count();
                found.push(&rest[..length]);
                length
            }
            byte if byte.is_ascii_whitespace() || !byte.is_ascii() => 1,
            _ => {
                found.push(&rest[..1]);
                1
            }
        };
        while at < text.len() && !text.is_char_boundary(at) {
            at += 1;
        }
    }
    found
}

/// Bytes up to the end of a literal, its closing quote included.
fn literal(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Where the item ends that begins here: after its `;` or its block.
fn item_end(tokens: &[&str], mut at: usize) -> usize {
    let (mut depth, is_import) = (0, tokens.get(at) == Some(&"use"));
    while let Some(token) = tokens.get(at) {
        at += 1;
        match *token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && *token == "}" && !is_import {
                    return at;
                }
            }
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    at
}

/// The tokens without items that only tests have, and the names of modules among those.
fn without_tests<'a>(tokens: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            let end = item_end(tokens, at + 7);
            if let Some(word) = tokens[at..end].windows(3).find(|words| words[0] == "mod" && words[2] == ";") {
                modules.push(word[1]);
            }
            at = end;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    (kept, modules)
}

/// The paths of a `use` tree that begins here; `at` ends behind it.
fn tree<'a>(tokens: &[&'a str], at: &mut usize, before: &[&'a str], found: &mut Vec<Vec<&'a str>>) {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(*at).copied() {
        match token {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| *token != "}") {
                    tree(tokens, at, &path, found);
                    if tokens.get(*at) == Some(&",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "," | "}" | ";" => break,
            "as" => *at += 1,
            "::" | "*" => {}
            "self" if !path.is_empty() => {}
            word => path.push(word),
        }
        *at += 1;
    }
    found.push(path);
}

/// Every path in a file that may lead to a module of its crate.
fn paths<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at] == "use" && tokens.get(at + 1) != Some(&"<") {
            at += 1;
            tree(tokens, &mut at, &[], &mut found);
        } else if tokens.get(at + 1) == Some(&"::") && (at == 0 || tokens[at - 1] != "::") {
            let mut path = vec![tokens[at]];
            while tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|word| word.starts_with(char::is_alphabetic)) {
                path.push(tokens[at + 2]);
                at += 2;
            }
            found.push(path);
        }
        at += 1;
    }
    found
}

/// Who imports whom, from the texts of a crate's files by their module.
fn graph(files: &BTreeMap<Vec<String>, String>) -> Graph {
    let mut read = BTreeMap::new();
    let mut tests: Vec<Vec<String>> = Vec::new();
    for (module, text) in files {
        let (kept, modules) = without_tests(&tokens(text));
        tests.extend(modules.iter().map(|name| [module.as_slice(), &[(*name).to_owned()]].concat()));
        read.insert(module, kept);
    }
    read.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    let mut graph = Graph::new();
    for (module, tokens) in &read {
        let targets: BTreeSet<String> = paths(tokens)
            .iter()
            .filter_map(|path| {
                let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
                let climbs = path.iter().take_while(|word| **word == "super").count();
                let full = match path.first().copied()? {
                    "crate" => owned(&path[1..]),
                    "self" => [module.as_slice(), &owned(&path[1..])].concat(),
                    "super" => [&module[..module.len().checked_sub(climbs)?], &owned(&path[climbs..])].concat(),
                    child => {
                        let full = [module.as_slice(), &owned(path)].concat();
                        read.contains_key(&[module.as_slice(), &[child.to_owned()]].concat()).then_some(full)?
                    }
                };
                (0..=full.len()).rev().map(|length| full[..length].to_vec()).find(|target| read.contains_key(target))
            })
            .filter(|target| target != *module)
            .map(|target| name(&target))
            .collect();
        graph.insert(name(module), targets);
    }
    graph
}

/// The shortest way from a module back to itself.
fn circle_of(graph: &Graph, module: &str) -> Option<Vec<String>> {
    let mut from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = VecDeque::from([module]);
    while let Some(present) = next.pop_front() {
        for target in graph.get(present).into_iter().flatten() {
            if target == module {
                let mut way = vec![module.to_owned()];
                let mut step = present;
                while step != module {
                    way.push(step.to_owned());
                    step = from[step];
                }
                way.push(module.to_owned());
                way.reverse();
                return Some(way);
            }
            if let Entry::Vacant(free) = from.entry(target) {
                free.insert(present);
                next.push_back(target);
            }
        }
    }
    None
}

fn shortest_circle(graph: &Graph) -> Option<Vec<String>> {
    graph.keys().filter_map(|module| circle_of(graph, module)).min_by_key(Vec::len)
}

/// Circles, the shortest first; each is opened at its last arrow before the next is looked for.
fn circles(mut graph: Graph) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(way) = shortest_circle(&graph) {
        if let Some(targets) = graph.get_mut(&way[way.len() - 2]) {
            targets.remove(&way[way.len() - 1]);
        }
        found.push(way.join(" → "));
    }
    found
}

fn files_of(folder: &str) -> BTreeMap<Vec<String>, String> {
    let source = root().join(folder).join("src");
    let module = |file: &Path| {
        let mut names: Vec<String> = file
            .strip_prefix(&source)
            .expect("a file below src")
            .with_extension("")
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        if names.last().is_some_and(|last| last == "mod" || last == "lib") {
            names.pop();
        }
        names
    };
    sources(folder).iter().map(|file| (module(file), read(file))).collect()
}

/// A crate's graph without the arrows to its owners, but for one of them.
fn graph_without(krate: &str, files: &BTreeMap<Vec<String>, String>, but: Option<&str>) -> Graph {
    let mut graph = graph(files);
    for (_, owner, _) in OWNERS.iter().filter(|(of, owner, _)| *of == krate && Some(*owner) != but) {
        for targets in graph.values_mut() {
            targets.remove(*owner);
        }
    }
    graph
}

#[test]
fn modules_import_only_downwards() {
    let mut found = Vec::new();
    for (krate, folder, _) in CRATES {
        let files = files_of(folder);
        found.extend(circles(graph_without(krate, &files, None)).into_iter().map(|circle| format!("{krate}: {circle}")));
        for (_, owner, _) in OWNERS.iter().filter(|(of, ..)| of == krate) {
            let stays = circles(graph_without(krate, &files, Some(*owner)));
            assert!(!stays.is_empty(), "{krate}: no circle leads through {owner} any more; take it from the list");
        }
    }
    assert!(found.is_empty(), "modules import downwards only; these go round:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_and_named_and_what_is_none_is_not() {
    let crate_of = |files: &[(&str, &str)]| {
        let module = |name: &str| name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let round = crate_of(&[
        ("", "mod a;\nmod b;\nmod c;\npub use a::A;"),
        ("a", "use crate::b::{self, x::Y as Z};\n#[cfg(test)]\nmod tests { use crate::c; }"),
        ("b", "// use crate::a;\nmod d;\nconst TEXT: &str = \"crate::a\";\nfn f(quote: char) -> bool { quote == '\"' && crate::c::f() }"),
        ("b/d", "fn g<'a>() -> super::super::c::C<'a> { todo!() }"),
        ("c", "use super::a;"),
    ]);
    assert_eq!(circles(graph(&round)), ["a → b → c → a"]);
    let mut child = round.clone();
    child.insert(vec!["c".to_owned()], "mod e;\nfn f() { e::f() }".to_owned());
    assert!(circles(graph(&child)).is_empty());
    child.insert(vec!["c".to_owned(), "e".to_owned()], "use super::f;".to_owned());
    assert_eq!(circles(graph(&child)), ["c → c/e → c"]);
    let tests =
        crate_of(&[("", "#[cfg(test)]\nmod tests;\npub fn f() {}"), ("tests", "use crate::f;"), ("tests/more", "use super::super::f;")]);
    assert!(circles(graph(&tests)).is_empty());
}
