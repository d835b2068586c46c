//! A strict reader of Prometheus' text format, which fails on all that its parser or linter would reject.

use std::collections::{BTreeMap, BTreeSet};

/// A page whose every line is understood.
pub struct Page {
    pub text: String,
    /// Values by name and labels, as written.
    samples: BTreeMap<String, f64>,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Name, labels, value.
fn sample(line: &str) -> (&str, Vec<(&str, &str)>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = series.split_once('{') else { return (series, Vec::new(), value) };
    let labels = rest.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
    let labels = labels.split(',').map(|label| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or_else(|| panic!("no quotes: {line}"));
        assert!(is_name(name) && !value.contains(['"', '\\']), "{line}");
        (name, value)
    });
    (name, labels.collect(), value)
}

impl Page {
    pub fn read(text: &str) -> Page {
        let known: BTreeMap<&str, _> = broker_config::metrics::ALL.iter().map(|metric| (metric.name, *metric)).collect();
        assert!(text.ends_with('\n'), "the last line ends");
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let (mut helped, mut family, mut buckets) = (None, None, BTreeMap::<String, (f64, f64)>::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, meaning) = help.split_once(' ').expect("a meaning");
                assert_eq!(known[name].meaning, meaning);
                helped = Some(name);
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!((helped, known[name].kind.as_str()), (Some(name), kind), "a type follows its help");
                assert!(families.insert(name), "{name} has two groups of lines");
                family = Some(known[name]);
                continue;
            }
            assert!(!line.starts_with('#'), "{line}");
            let (name, labels, value) = sample(line);
            let family = family.unwrap_or_else(|| panic!("before any type: {line}"));
            let suffix = name.strip_prefix(family.name).unwrap_or_else(|| panic!("not of {}: {line}", family.name));
            let fits = if family.buckets.is_empty() { suffix.is_empty() } else { ["_bucket", "_sum", "_count"].contains(&suffix) };
            assert!(fits && is_name(name) && value.is_finite(), "{line}");
            let mut names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            if suffix == "_bucket" {
                assert_eq!(names.pop(), Some("le"), "{line}");
            }
            assert_eq!(names, family.labels, "{line}");
            let own = labels.iter().filter(|(name, _)| *name != "le").map(|(name, value)| format!("{name}={value};")).collect::<String>();
            let of = format!("{} {own}", family.name);
            if suffix == "_bucket" {
                let bound: f64 = labels.last().expect("a bound").1.parse().expect("a bound");
                let (last, count) = buckets.get(&of).copied().unwrap_or((f64::NEG_INFINITY, 0.0));
                assert!(bound > last && value >= count, "buckets grow: {line}");
                buckets.insert(of, (bound, value));
            } else if suffix == "_count" {
                assert_eq!(buckets[&of], (f64::INFINITY, value), "the last bucket has all: {line}");
            }
            let series = line.rsplit_once(' ').expect("a value").0.to_owned();
            assert!(samples.insert(series, value).is_none(), "twice: {line}");
        }
        Page { text: text.to_owned(), samples }
    }

    /// The value of one series, with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeSet<(&str, &str)> = labels.iter().copied().collect();
        let found = self.samples.iter().map(|(series, value)| (sample_of(series), *value));
        let mut found = found.filter(|((found, labels), _)| *found == name && *labels == wanted).map(|(_, value)| value);
        found.next()
    }

    /// The sum of all series that have these labels among theirs.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.samples.iter().map(|(series, value)| (sample_of(series), *value));
        let has = |all: &BTreeSet<(&str, &str)>| labels.iter().all(|label| all.contains(label));
        found.filter(|((found, all), _)| *found == name && has(all)).map(|(_, value)| value).sum()
    }

    /// All series, as written.
    pub fn series(&self) -> impl Iterator<Item = &String> {
        self.samples.keys()
    }
}

fn sample_of(series: &str) -> (&str, BTreeSet<(&str, &str)>) {
    let Some((name, labels)) = series.split_once('{') else { return (series, BTreeSet::new()) };
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    (name, labels.map(|(name, value)| (name, value.trim_matches('"'))).collect())
}

#[test]
fn what_prometheus_would_refuse_is_refused() {
    let good = "# HELP piecework_pools Pools.\n# TYPE piecework_pools gauge\npiecework_pools 1\n";
    assert_eq!(Page::read(good).value("piecework_pools", &[]), Some(1.0));
    for bad in [
        "piecework_pools 1\n",
        "# TYPE piecework_pools gauge\npiecework_pools 1\n",
        &good.replace("gauge", "counter"),
        &good.replace("piecework_pools 1", "piecework_pools 1\npiecework_pools 1"),
        &good.replace("piecework_pools 1", "piecework_pools{job=\"j\"} 1"),
        &good.replace("piecework_pools 1", "piecework_pools NaN"),
        &good.repeat(2),
    ] {
        assert!(std::panic::catch_unwind(|| Page::read(bad)).is_err(), "{bad}");
    }
}
