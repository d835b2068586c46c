//! `docs/metrics.md`, written from the table; and alerts worth having, which may only name what is in it.

use super::table::{ALL, AUTO_POOLS, OTHER_POOLS, POOLS_NAMED_MAX};

/// An alert for Prometheus.
struct Alert {
    name: &'static str,
    /// In PromQL.
    condition: &'static str,
    /// For how long it must hold.
    lasts: &'static str,
    /// What is wrong and where to look.
    summary: &'static str,
}

const ALERTS: &[Alert] = &[
    Alert {
        name: "PieceworkCannotStore",
        condition: "increase(piecework_engine_batches_refused_total[5m]) > 0 or piecework_oldest_unsettled_event_seconds > 60",
        lasts: "1m",
        summary: "The dispatcher cannot store what nodes report: look at the disk of its data folder and at its log.",
    },
    Alert {
        name: "PieceworkBrokerAway",
        condition: "min by (part) (piecework_broker_connected) == 0 or max by (part) (piecework_broker_blocked) == 1",
        lasts: "2m",
        summary: "A part has no usable connection to the broker: running tasks go on, nothing new starts.",
    },
    Alert {
        name: "PieceworkPoolRunsNothing",
        condition: "piecework_pool_waiting_seconds > 900 and on (pool) piecework_task_slots_used == 0",
        lasts: "1m",
        summary: "Tasks of a pool have waited for 15 minutes and none runs: look at its nodes, its size and its start task.",
    },
];

/// The page as Markdown.
pub fn document() -> String {
    let mut text = format!(
        "# Metrics

Written from `broker-config/src/metrics`; a test compares.

The dispatcher serves its metrics in the text format of Prometheus at `/metrics`, on the API's port.
As for `/piecework/health`, no key is asked for: the page holds no secret and nothing of what tasks say or read, but names of pools and counts of tasks and nodes.
Whoever wants it on another address, for example one that only Prometheus reaches, gives `--metrics-listen ADDRESS` (`PIECEWORK_METRICS_LISTEN`): it is served there by plain HTTP, and the API's port then answers 404.
`piecework autoscaler --metrics-listen` (`PIECEWORK_METRICS_LISTEN`) and `piecework agent --metrics-listen` (`PIECEWORK_AGENT_METRICS_LISTEN`, as agents inherit the autoscaler's environment) serve those of their own processes; without it they gather none.
In `piecework up`, dispatcher and autoscaler are one process and share the dispatcher's page.

```yaml
scrape_configs:
  - job_name: piecework
    static_configs:
      - targets: [\"127.0.0.1:7373\"]
```

Counters and histograms begin at zero with the process, and count a change once it is committed; gauges say what is so at the moment, and are right after a restart as well.
Gauges of a pool leave with it.
No label holds the name of a job, a task or a node, so the number of series does not grow with them.
The label `pool` names the first {POOLS_NAMED_MAX} pools since the start of the process; further pools are summed as `{OTHER_POOLS}`, and those that were made for a job or job schedule as `{AUTO_POOLS}`.
When the engine does not answer within two seconds, the page comes without its gauges.

## What there is

| Name | Type | Unit | Labels | Process | Meaning |
| --- | --- | --- | --- | --- | --- |
"
    );
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let (name, kind, unit) = (metric.name, metric.kind.as_str(), metric.unit);
        text += &format!("| `{name}` | {kind} | {unit} | {labels} | {} | {} |\n", metric.parts, metric.meaning);
    }
    text += "\n## Alerts worth having\n\n```yaml\ngroups:\n  - name: piecework\n    rules:\n";
    for Alert { name, condition, lasts, summary } in ALERTS {
        text += &format!(
            "      - alert: {name}\n        expr: {condition}\n        for: {lasts}\n        annotations:\n          summary: \"{summary}\"\n"
        );
    }
    text += "```\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_name_only_metrics_that_exist() {
        for alert in ALERTS {
            let words = alert.condition.split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_');
            let named: Vec<&str> = words.filter(|word| word.starts_with("piecework_")).collect();
            assert!(!named.is_empty(), "{}", alert.name);
            for name in named {
                assert!(ALL.iter().any(|metric| metric.name == name), "{}: {name} does not exist", alert.name);
            }
        }
    }
}
