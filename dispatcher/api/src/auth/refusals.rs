//! Answers to requests whose sender could not be identified.

use model::refusal::{Code, Refusal};

/// The refusal of a signature or token, with the reason.
pub fn failed(code: Code, detail: String) -> Refusal {
    Refusal::new(
        code,
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
    )
    .with("AuthenticationErrorDetail", detail)
}
