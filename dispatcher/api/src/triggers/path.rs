//! Paths into JSON: `$.name['other name'][3]`.

use serde_json::Value;

/// Steps of a path at most.
const STEPS_MAX: usize = 32;

/// A path that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

impl Path {
    /// Reads a path; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let wrong = || format!("{text} is no path such as $.name['other name'][3].");
        let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return Err(format!("A path has at most {STEPS_MAX} steps."));
            }
            if let Some(named) = rest.strip_prefix('.') {
                let end = named.find(['.', '[']).unwrap_or(named.len());
                if end == 0 {
                    return Err(wrong());
                }
                steps.push(Step::Name(named[..end].to_owned()));
                rest = &named[end..];
            } else if let Some(quoted) = rest.strip_prefix("['") {
                let end = quoted.find("']").ok_or_else(wrong)?;
                steps.push(Step::Name(quoted[..end].to_owned()));
                rest = &quoted[end + 2..];
            } else {
                let (index, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(wrong)?;
                steps.push(Step::Index(index.parse().map_err(|_| wrong())?));
                rest = after;
            }
        }
        Ok(Path { steps })
    }

    /// The value there; nothing when there is none, or null.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let found = self.steps.iter().try_fold(value, |value, step| match step {
            Step::Name(name) => value.get(name),
            Step::Index(index) => value.get(index),
        });
        found.filter(|found| !found.is_null())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_its_value_or_nowhere() {
        let body = json!({"a": {"b c": [0, {"d.e": "x"}]}, "n": null});
        let find = |path: &str| Path::parse(path).unwrap().find(&body).cloned();
        assert_eq!(find("$.a['b c'][1]['d.e']"), Some(json!("x")));
        assert_eq!(find("$"), Some(body.clone()));
        for nowhere in ["$.a.b", "$.a['b c'][2]", "$.n", "$[0]"] {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
        for wrong in ["", "a", "$a", "$.", "$..a", "$[x]", "$['a", "$[1", &format!("${}", ".a".repeat(40))] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }
}
