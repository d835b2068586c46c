//! Publishers on a broker whose users the dispatcher does not manage: the response has the commands for its administrator.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

#[test]
fn without_an_administrator_the_commands_to_run_are_told() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let wanted = json!({"name": "web", "poolId": "pool", "submit": true, "functions": ["f"]});
    let added = dispatcher.send("POST", "/piecework/publishers", wanted, 201).json();
    let url = added["url"].as_str().unwrap();
    let password = url.strip_prefix("amqp://web:").unwrap().split('@').next().unwrap();
    let commands: Vec<&str> = added["commands"].as_array().unwrap().iter().map(|command| command.as_str().unwrap()).collect();
    assert_eq!(
        commands,
        [
            &format!("echo '{password}' | rabbitmqctl add_user web"),
            "rabbitmqctl set_user_tags web piecework-publisher piecework-pool-Pool piecework-submit piecework-function-f",
            "rabbitmqctl set_topic_permissions -p '/' web piecework.submit '^pool$' '^$'",
            "rabbitmqctl set_topic_permissions -p '/' web piecework.invoke '^pool$' '^$'",
            r"rabbitmqctl set_permissions -p '/' web '^piecework\.answers\.web\.' '^(piecework\.submit|piecework\.invoke)$' '^piecework\.answers\.web\.'",
        ]
    );
    assert_eq!(
        dispatcher.send("DELETE", "/piecework/publishers/web", Value::Null, 200).json(),
        json!({"commands": ["rabbitmqctl delete_user web"]})
    );
    let refused = dispatcher.send("GET", "/piecework/publishers", Value::Null, 409).json();
    assert_eq!(refused["code"], "OperationInvalidForCurrentState");
}

#[test]
fn what_cannot_be_a_publisher_is_refused() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let code = |body: Value, status| dispatcher.send("POST", "/piecework/publishers", body, status).json()["code"].clone();
    assert_eq!(code(json!({"name": "web", "poolId": "none", "submit": true}), 404), "PoolNotFound");
    assert_eq!(code(json!({"name": "web", "poolId": "pool"}), 400), "InvalidPropertyValue");
    for name in ["a.b", "a'b", ""] {
        assert_eq!(code(json!({"name": name, "poolId": "pool", "submit": true}), 400), "InvalidPropertyValue", "{name:?}");
    }
    assert_eq!(code(json!({"name": "web", "poolId": "pool", "functions": ["a b"]}), 400), "InvalidPropertyValue");
    assert_eq!(code(json!({"poolId": "pool", "submit": true}), 400), "MissingRequiredProperty");
    assert_eq!(dispatcher.send("DELETE", "/piecework/publishers/a.b", Value::Null, 404).json()["code"], "ResourceNotFound");
}
