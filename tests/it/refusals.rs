//! The table of bad input against the real binary.

use crate::{bad_input, signing::Account, stack::Stack};

#[test]
fn bad_input_is_refused_with_the_right_code_and_changes_nothing() {
    let stack = Stack::start();
    let ready = &stack.ready;
    bad_input::check(&Account { url: ready.url.clone(), name: ready.account.clone(), key: ready.key.clone() });
    stack.stop();
}
