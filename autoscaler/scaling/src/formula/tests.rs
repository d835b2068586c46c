//! Tests of the language through its public interface: its tables, formulas of Azure's documentation, random inputs.

use proptest::prelude::*;

use super::*;

const NOW: &str = "2026-11-23T19:18:47.805Z";

/// Samples up to now, the newest last; each number is that many active tasks.
fn history(active: &[u32]) -> History {
    let now = Timestamp::parse(NOW).unwrap();
    let count = active.len() as i64;
    let mut history = History::default();
    for (index, active) in active.iter().enumerate() {
        let at = now.plus_ms((index as i64 + 1 - count) * SAMPLE_MS);
        history.push(Sample { at, active: *active, active_slots: *active * 2, dedicated: 4, usable: 3, ..Sample::default() });
    }
    history
}

fn evaluate_at(text: &str, now: &str, history: &History, target: u32) -> Evaluation {
    let now = Timestamp::parse(now).unwrap();
    let inputs = Inputs { now, sampled: now, history, target_dedicated: target, target_low_priority: 0, slots_per_node: 4, seed: 7 };
    Formula::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).evaluate(&inputs)
}

fn evaluate(text: &str, history: &History) -> Evaluation {
    evaluate_at(text, NOW, history, 2)
}

/// The value of an expression, as the results show it.
fn worth(expression: &str) -> String {
    let evaluation = evaluate(&format!("r = {expression}"), &history(&[1, 2, 3, 4]));
    match evaluation.error {
        Some(error) => format!("error: {}", error.reason),
        None => evaluation.results.split(";r=").nth(1).unwrap().to_owned(),
    }
}

fn target(text: &str, active: &[u32]) -> u32 {
    let evaluation = evaluate(text, &history(active));
    assert_eq!(evaluation.error, None, "{text}");
    evaluation.target_dedicated
}

#[test]
fn operators_follow_the_table() {
    for (expression, expected) in [
        ("1 + 2 * 3 - 4 / 8", "6.5"),
        ("(1 + 2) * 3", "9"),
        ("10 - 4 - 3", "3"),
        ("-2 * -(3)", "6"),
        ("!0 + !5", "1"),
        ("1 < 2 == 1", "1"),
        ("2 != 2 || 3 >= 3 && 0", "0"),
        ("1 || 0 && 0", "1"),
        ("2 * TimeInterval_Minute", "PT2M"),
        ("TimeInterval_Hour / 4", "PT15M"),
        ("TimeInterval_Minute - TimeInterval_Hour", "-PT59M"),
        ("-TimeInterval_Day", "-P1D"),
        ("TimeInterval_Week > TimeInterval_Day", "1"),
        ("time() + TimeInterval_Hour", "2026-11-23T20:18:47.805Z"),
        ("-1 * TimeInterval_Hour + time()", "2026-11-23T18:18:47.805Z"),
        ("time() - time(\"2026-11-23T19:00:00Z\")", "PT18M47.805S"),
        ("time() > time(\"2020-01-01\")", "1"),
        ("\"a\" < \"b\"", "1"),
        ("0 ? 1 : 0 ? 2 : 3", "3"),
        ("1 ? 0 ? 5 : 6 : 7", "6"),
        ("$PendingTasks.GetSample(2) * 2", "[6,8]"),
        ("$PendingTasks.GetSample(2) - $PendingTasks.GetSample(2)", "[0,0]"),
        ("requeue == $NodeDeallocationOption", "1"),
        ("$CurrentDedicatedNodes * 1.5", "6"),
        ("$TaskSlotsPerNode + $TargetDedicatedNodes", "6"),
        ("$pendingtaskslots", "8"),
    ] {
        assert_eq!(worth(expression), expected, "{expression}");
    }
}

#[test]
fn what_is_not_in_the_table_is_an_error() {
    for expression in [
        "1 + TimeInterval_Hour",
        "time() + time()",
        "time() - TimeInterval_Hour",
        "TimeInterval_Hour * TimeInterval_Hour",
        "\"a\" + \"b\"",
        "\"a\" == 1",
        "2 * $PendingTasks.GetSample(2)",
        "$PendingTasks.GetSample(2) < 3",
        "$PendingTasks.GetSample(2) + $PendingTasks.GetSample(3)",
        "!time()",
        "-\"a\"",
        "time() ? 1 : 2",
        "(1).hour",
        "(1).Count()",
        "max(\"a\")",
        "max($PendingTasks.GetSample(TimeInterval_Hour, TimeInterval_Minute * 30))",
        "val($PendingTasks.GetSample(2), 2)",
        "val($PendingTasks.GetSample(2), -1)",
        "percentile($PendingTasks.GetSample(2), 101)",
        "time(\"yesterday\")",
        "time(5)",
        "$CPUPercent * 2",
        "$PendingTasks.GetSample(0)",
        "$PendingTasks.GetSample(\"1\")",
        "$PendingTasks.GetSample(TimeInterval_Minute, 50, 50)",
        "TimeInterval_Hour / 0",
    ] {
        assert!(worth(expression).starts_with("error: "), "{expression} is {}", worth(expression));
    }
}

#[test]
fn functions_compute() {
    for (expression, expected) in [
        ("avg(1, 2, $PendingTasks.GetSample(2))", "2.5"),
        ("max($PendingTasks.GetSample(4), 9) - min(3, 8)", "6"),
        ("sum(vec(1, 2), 3)", "6"),
        ("range(3, 9, 4)", "6"),
        ("std(2, 4, 6)", "2"),
        ("std(5)", "0"),
        ("norm(3, 4)", "5"),
        ("len($PendingTasks.GetSample(100))", "4"),
        ("percentile(vec(15, 20, 35, 40, 50), 40)", "20"),
        ("percentile(vec(3, 1, 2), 0)", "1"),
        ("val($PendingTasks.GetSample(4), 0)", "1"),
        ("lg(8)", "3"),
        ("ln(1)", "0"),
        ("log(vec(1, 1000))", "[0,3]"),
        ("ceil(1.2) + floor(1.8) + round(2.5)", "6"),
        ("round(vec(0.4, 0.6))", "[0,1]"),
        ("rand() < 1 && rand() >= 0", "1"),
        ("rand() == rand()", "0"),
        ("time().year * 10000 + time().month * 100 + time().day", "20261123"),
        ("time().weekday", "1"),
        ("time(\"2026-11-22\").weekday", "7"),
        ("time().hour * 10000 + time().minute * 100 + time().second", "191847"),
        ("time(\"Sun, 06 Nov 1994 08:49:37 GMT\").year", "1994"),
        ("time(\"2026-11-23T19:00:00+01:00\").hour", "18"),
        ("$PendingTasks.GetSamplePeriod()", "PT30S"),
        ("$PendingTasks.Count()", "4"),
        ("$CPUPercent.Count()", "0"),
        ("$PendingTasks.HistoryBeginTime()", "2026-11-23T19:17:17.805Z"),
        ("$PendingTasks.GetSample(TimeInterval_Minute)", "[3,4]"),
        ("$PendingTasks.GetSample(TimeInterval_Minute * 2, TimeInterval_Minute)", "[1,2]"),
        ("$PendingTasks.GetSample(time() + -1 * TimeInterval_Minute)", "[3,4]"),
        ("$PendingTasks.GetSample(TimeInterval_Minute * 2, 100)", "[1,2,3,4]"),
        ("$PendingTasks.GetSamplePercent(TimeInterval_Minute * 4)", "50"),
        ("$PendingTasks.GetSamplePercent(TimeInterval_Minute * 4, TimeInterval_Minute * 2)", "0"),
    ] {
        assert_eq!(worth(expression), expected, "{expression}");
    }
}

#[test]
fn too_few_samples_fail_the_evaluation_in_azures_words() {
    let evaluation = evaluate("a = 5;\n$TargetDedicatedNodes = avg($RunningTasks.GetSample(TimeInterval_Hour, 70));", &history(&[1; 60]));
    let error = evaluation.error.unwrap();
    assert_eq!(error.to_string(), "Line 2, Col 43: Insufficient data from data set: $RunningTasks wanted 70%, received 50%.");
    assert_eq!((evaluation.target_dedicated, evaluation.option), (2, DeallocationOption::Requeue));
    assert!(evaluation.results.contains(";a=5"), "{}", evaluation.results);
}

#[test]
fn targets_are_cut_to_whole_numbers_and_never_negative() {
    for (value, expected) in [("2.9", 2), ("-3", 0), ("min(1/0, 20)", 20), ("1e12", TARGET_MAX), ("$ActiveTasks", 5)] {
        assert_eq!(target(&format!("$TargetDedicatedNodes = {value}"), &[5]), expected, "{value}");
    }
    for value in ["1 / 0", "0 / 0", "ln(-1)", "time()", "$PendingTasks.GetSample(1)"] {
        let evaluation = evaluate(&format!("$TargetDedicatedNodes = {value}"), &history(&[1]));
        assert!(evaluation.error.is_some() && evaluation.target_dedicated == 2, "{value}");
    }
}

#[test]
fn the_full_name_wins_over_its_alias_and_silence_changes_nothing() {
    assert_eq!(target("$TargetDedicatedNodes = 3; $TargetDedicated = 9", &[]), 3);
    assert_eq!(target("$TargetDedicated = 9", &[]), 9);
    assert_eq!(target("$TargetLowPriority = 9", &[]), 2);
    assert_eq!(target("$TargetDedicatedNodes = 3; stop(); $TargetDedicatedNodes = 4", &[]), 3);
    assert_eq!(target("$TargetDedicatedNodes = 3; x = 1 ? stop() : 0; $TargetDedicatedNodes = 4", &[]), 3);
    let evaluation = evaluate("$NodeDeallocationOption = 1 ? taskcompletion : requeue; $TargetLowPriorityNodes = 7", &history(&[]));
    assert_eq!((evaluation.option, evaluation.target_low_priority), (DeallocationOption::TaskCompletion, 7));
    assert!(evaluate("$NodeDeallocationOption = 5", &history(&[])).error.is_some());
}

#[test]
fn what_cannot_be_read_names_line_and_column() {
    for (text, place) in [
        ("", "Line 1, Col 1"),
        ("// nothing", "Line 1, Col 1"),
        ("$TargetDedicatedNodes = ", "Line 1, Col 25"),
        ("$TargetDedicatedNodes = 1 +", "Line 1, Col 28"),
        ("a = 1;\n\n  b = c", "Line 3, Col 7"),
        ("a = b; b = 1", "Line 1, Col 5"),
        ("a = a + 1", "Line 1, Col 5"),
        ("$ActiveTasks = 5", "Line 1, Col 1"),
        ("TimeInterval_Day = 5", "Line 1, Col 1"),
        ("a = nothing(5)", "Line 1, Col 5"),
        ("a = avg()", "Line 1, Col 5"),
        ("a = val(1)", "Line 1, Col 5"),
        ("a = $ActiveTasks.GetSamples(1)", "Line 1, Col 18"),
        ("a = time().century", "Line 1, Col 12"),
        ("a = 1 b = 2", "Line 1, Col 7"),
        ("a = (1", "Line 1, Col 7"),
        ("a = 1)", "Line 1, Col 6"),
        ("a = 1 ? 2", "Line 1, Col 10"),
        ("if (1) a = 2", "Line 1, Col 4"),
        ("é", "Line 1, Col 1"),
        ("5 = 5", "Line 1, Col 1"),
    ] {
        let error = Formula::parse(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{place}:")), "{text}: {error}");
    }
}

#[test]
fn limits_hold_at_their_edges() {
    let statements = |count: usize| "a=1;".repeat(count);
    assert!(Formula::parse(&statements(STATEMENTS_MAX)).is_ok());
    assert!(Formula::parse(&statements(STATEMENTS_MAX + 1)).unwrap_err().reason.contains("100 statements"));
    let nested = |depth: usize| format!("a={}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Formula::parse(&nested(DEPTH_MAX)).is_ok());
    assert!(Formula::parse(&nested(DEPTH_MAX + 1)).is_err());
    let long = |length: usize| format!("a=1;{}", "/".repeat(length - 4));
    assert!(Formula::parse(&long(CHARS_MAX)).is_ok());
    assert!(Formula::parse(&long(CHARS_MAX + 1)).is_err());
}

#[test]
fn worst_cases_end_in_a_result() {
    let full = history(&vec![7; 2_880]);
    let doubling = format!("v = vec(1, 2);{}", "v = vec(v, v, v, v);".repeat(90));
    assert!(evaluate(&doubling, &full).error.is_some());
    let greedy = format!("a = sum(0{});", ",$ActiveTasks.GetSample(2880)".repeat(270));
    assert!(evaluate(&greedy, &full).error.unwrap().reason.contains("touches more than"));
    let flat = format!("a = 1{}", "+1".repeat(4_000));
    assert!(evaluate(&flat, &full).results.ends_with(";a=4001"));
    let choices = format!("a = {}9", "0?1:".repeat(2_000));
    assert!(evaluate(&choices, &full).results.ends_with(";a=9"));
    for text in [format!("a = {}1", "!".repeat(8_000)), format!("a = 1{}", ".hour".repeat(1_000)), format!("a = {}", "1?".repeat(4_000))] {
        assert!(Formula::parse(&text).is_err());
    }
    let shown = format!("{}{}", "$v = $ActiveTasks.GetSample(2880);", (0..90).map(|n| format!("v{n} = $v * 1e300;")).collect::<String>());
    assert!(evaluate(&shown, &full).results.len() < 40_000);
}

#[test]
fn results_show_targets_first_and_variables_in_order() {
    let text = "$b = 1; a = $ActiveTasks.GetSample(3); $TargetDedicatedNodes = 10.7; $curTime = time(); Z = 1e-9; y = \"t\"";
    assert_eq!(
        evaluate(text, &history(&[1, 1, 1])).results,
        "$TargetDedicatedNodes=10;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue;$b=1;\
         $curTime=2026-11-23T19:18:47.805Z;Z=1E-9;a=[1,1,1];y=t"
    );
}

const QUEUE: &str = "
startingNumberOfVMs = 1;
maxNumberofVMs = 25;
pendingTaskSamplePercent = $PendingTasks.GetSamplePercent(180 * TimeInterval_Second);
pendingTaskSamples = pendingTaskSamplePercent < 70 ? startingNumberOfVMs : avg($PendingTasks.GetSample(180 * TimeInterval_Second));
$TargetDedicatedNodes=min(maxNumberofVMs, pendingTaskSamples);
$NodeDeallocationOption = taskcompletion;";

#[test]
fn formula_1_follows_the_average_queue() {
    assert_eq!(target(QUEUE, &[50]), 1);
    assert_eq!(target(QUEUE, &[4, 6, 4, 6, 4, 6]), 5);
    assert_eq!(target(QUEUE, &[500; 6]), 25);
    assert_eq!(evaluate(QUEUE, &history(&[1])).option, DeallocationOption::TaskCompletion);
}

#[test]
fn formula_2_replaces_preempted_nodes() {
    let text = "
maxNumberofVMs = 25;
$TargetDedicatedNodes = min(maxNumberofVMs, $PreemptedNodeCount.GetSample(180 * TimeInterval_Second));
$TargetLowPriorityNodes = min(maxNumberofVMs , maxNumberofVMs - $TargetDedicatedNodes);
$NodeDeallocationOption = taskcompletion;";
    let mut history = History::default();
    history.push(Sample { at: Timestamp::parse(NOW).unwrap(), preempted: 4, ..Sample::default() });
    let evaluation = evaluate(text, &history);
    assert_eq!((evaluation.target_dedicated, evaluation.target_low_priority, evaluation.error), (4, 21, None));
}

#[test]
fn formula_3_keeps_office_hours() {
    let text = "
$curTime = time();
$workHours = $curTime.hour >= 8 && $curTime.hour < 18;
$isWeekday = $curTime.weekday >= 1 && $curTime.weekday <= 5;
$isWorkingWeekdayHour = $workHours && $isWeekday;
$TargetDedicatedNodes = $isWorkingWeekdayHour ? 20:10;
$NodeDeallocationOption = taskcompletion;";
    for (now, expected) in [
        ("2026-11-23T08:00:00Z", 20),
        ("2026-11-23T07:59:59Z", 10),
        ("2026-11-27T17:59:59Z", 20),
        ("2026-11-27T18:00:00Z", 10),
        ("2026-11-28T12:00:00Z", 10),
        ("2026-11-29T12:00:00Z", 10),
    ] {
        assert_eq!(evaluate_at(text, now, &History::default(), 0).target_dedicated, expected, "{now}");
    }
}

#[test]
fn formula_4_remembers_the_queue() {
    let text = "
// Get pending tasks for the past 15 minutes.
$samples = $PendingTasks.GetSamplePercent(TimeInterval_Minute * 15);
// If we have fewer than 70 percent data points, we use the last sample point, otherwise we use the maximum of last sample point and the history average.
$tasks = $samples < 70 ? max(0,$PendingTasks.GetSample(1)) : max( $PendingTasks.GetSample(1), avg($PendingTasks.GetSample(TimeInterval_Minute * 15)));
$targetVMs = $tasks > 0? $tasks:max(0, $TargetDedicatedNodes/2); // halve
$TargetDedicatedNodes = max(0, min($targetVMs, 20));
$NodeDeallocationOption = taskcompletion;";
    assert_eq!(target(text, &[]), 1, "no samples: half of the present two");
    assert_eq!(target(text, &[3]), 3);
    assert_eq!(target(text, &[10; 30]), 10);
    assert_eq!(target(text, &[100; 30]), 20);
    let falling: Vec<u32> = [vec![10; 29], vec![0]].concat();
    assert_eq!(target(text, &falling), 9, "the average of the window counts when it is more than the last sample");
}

#[test]
fn formula_5_counts_slots_and_reads_processors() {
    let slots = "
$samples = $ActiveTasks.GetSamplePercent(TimeInterval_Minute * 15);
$tasks = $samples < 70 ? max(0,$ActiveTasks.GetSample(1)) : max( $ActiveTasks.GetSample(1),avg($ActiveTasks.GetSample(TimeInterval_Minute * 15)));
$cores = $TargetDedicatedNodes * 4;
$extraVMs = (($tasks - $cores) + 3) / 4;
$targetVMs = ($TargetDedicatedNodes + $extraVMs);
$TargetDedicatedNodes = max(0,min($targetVMs,3));
$NodeDeallocationOption = taskcompletion;";
    assert_eq!(target(slots, &[9]), 3);
    assert_eq!(target(slots, &[2]), 1);
    assert_eq!(target(slots, &[0]), 0);
    let processors = "
$totalDedicatedNodes = (min($CPUPercent.GetSample(TimeInterval_Minute * 10)) > 0.7) ? ($CurrentDedicatedNodes * 1.1) : $CurrentDedicatedNodes;
$totalDedicatedNodes = (avg($CPUPercent.GetSample(TimeInterval_Minute * 60)) < 0.2) ? ($CurrentDedicatedNodes * 0.9) : $totalDedicatedNodes;
$TargetDedicatedNodes = min(400, $totalDedicatedNodes)";
    let evaluation = evaluate(processors, &history(&[1; 200]));
    assert!(evaluation.error.is_some(), "nothing measures processors yet, and missing data never shrinks a pool");
    assert_eq!(evaluation.target_dedicated, 2);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            names::METRICS
                .iter()
                .map(|(name, _)| *name)
                .chain([
                    "a",
                    "b",
                    "$c",
                    "=",
                    ";",
                    "+",
                    "-",
                    "*",
                    "/",
                    "?",
                    ":",
                    "(",
                    ")",
                    ",",
                    ".",
                    "<",
                    "<=",
                    "==",
                    "&&",
                    "||",
                    "!",
                    "1",
                    "2.5",
                    "1e9",
                    "0",
                    "\"x\"",
                    "time()",
                    "TimeInterval_Minute",
                    "TimeInterval_100ns",
                    "GetSample",
                    "GetSamplePercent",
                    "avg",
                    "max",
                    "val",
                    "vec",
                    "percentile",
                    "stop()",
                    "rand()",
                    "hour",
                    "weekday",
                    "$TargetDedicatedNodes",
                    "$NodeDeallocationOption",
                    "taskcompletion",
                    "$TargetLowPriority",
                    "\n",
                    "//",
                ])
                .map(str::to_owned)
                .collect::<Vec<_>>()
        ),
        "\\PC{0,3}",
    ]
}

/// An expression that parses, and may or may not have a value.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "0",
        "-2.5",
        "1e300",
        "time()",
        "TimeInterval_Year",
        "\"t\"",
        "$PendingTasks",
        "$CPUPercent",
        "$ActiveTasks.GetSample(5)",
        "$TargetDedicatedNodes",
        "$TaskSlotsPerNode",
        "rand()",
        "requeue",
        "stop()",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 64, 4, |inner| {
        let sign = prop::sample::select(vec!["+", "-", "*", "/", "<", ">=", "==", "!=", "&&", "||"]);
        let function = prop::sample::select(vec!["avg", "max", "min", "sum", "range", "std", "norm", "len", "vec"]);
        let single = prop::sample::select(vec!["lg", "ln", "log", "ceil", "floor", "round", "-", "!", "time"]);
        prop_oneof![
            (inner.clone(), sign, inner.clone()).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (function, prop::collection::vec(inner.clone(), 1..4)).prop_map(|(name, args)| format!("{name}({})", args.join(", "))),
            (single, inner.clone()).prop_map(|(name, arg)| format!("{name}({arg})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("percentile({a}, val({b}, {a}))")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("$RunningTasks.GetSample({a}, {b})")),
        ]
    })
}

/// A whole formula of several statements, in the spellings that people use.
fn formula() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "$b", "$TargetDedicatedNodes", "$TargetLowPriorityNodes", "$NodeDeallocationOption"]);
    let space = prop::sample::select(vec![" ", "", "\n", " // note\n"]);
    let statement = (name, space, expression()).prop_map(|(name, space, value)| format!("{name}{space}={space}{value};{space}"));
    prop::collection::vec(statement, 1..6)
        .prop_map(|statements| statements.concat())
        .prop_filter("longer than formulas may be", |text| text.len() < CHARS_MAX - 2_000)
}

/// A statement that no parser may take, whatever stands before it.
fn broken_statement() -> impl Strategy<Value = String> {
    prop_oneof![
        expression().prop_map(|value| format!("a = {value} 1;")),
        expression().prop_map(|value| format!("a = ({value};")),
        expression().prop_map(|value| format!("a = {value});")),
        expression().prop_map(|value| format!("a = {value} +;")),
        expression().prop_map(|value| format!("= {value};")),
        expression().prop_map(|value| format!("1 = {value};")),
        expression().prop_map(|value| format!("a = {value} ? 1;")),
        expression().prop_map(|value| format!("a = nothing({value});")),
        expression().prop_map(|value| format!("a = {value} # 1;")),
        Just("a = \"never closed;".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(words in prop::collection::vec(word(), 0..60)) {
        if let Ok(formula) = Formula::parse(&words.join(" ")) {
            let history = history(&[3, 1, 4]);
            let now = Timestamp::parse(NOW).unwrap();
            formula.evaluate(&Inputs { now, sampled: now, history: &history, target_dedicated: 1, target_low_priority: 1, slots_per_node: 1, seed: 0 });
        }
    }

    #[test]
    fn formulas_of_the_grammar_parse_and_are_evaluated_within_bounds(text in formula()) {
        let parsed = Formula::parse(&text);
        prop_assert!(parsed.is_ok(), "{text}: {}", parsed.unwrap_err());
        prop_assert!(evaluate(&text, &history(&[3, 1, 4])).target_dedicated <= TARGET_MAX);
    }

    #[test]
    fn formulas_with_one_broken_statement_do_not_parse(before in formula(), broken in broken_statement()) {
        let text = format!("{before}{broken}");
        prop_assert!(Formula::parse(&text).is_err(), "{}", text);
    }

    #[test]
    fn every_expression_gives_a_target_within_bounds(text in expression()) {
        let evaluation = evaluate(&format!("$TargetDedicatedNodes = {text}; $NodeDeallocationOption = {text}"), &history(&[3, 1, 4]));
        prop_assert!(evaluation.target_dedicated <= TARGET_MAX);
        if evaluation.error.is_some() {
            prop_assert_eq!(evaluation.target_dedicated, 2);
        }
    }
}
