//! A vote in JSON. The reader does not panic, it refuses a body as malformed only if the body is no JSON object, and
//! every accepted vote is valid.

#![no_main]

#[path = "admit.rs"]
mod admit;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use votes::{Reason, VoteRequest};

fuzz_target!(|body: &[u8]| {
    let is_object = serde_json::from_slice::<Map<String, Value>>(body).is_ok();
    match VoteRequest::from_json(body) {
        Ok(request) => admit::check(request),
        Err(refusal) if refusal.reason == Reason::MalformedBody => assert!(!is_object, "{refusal}"),
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::InvalidField);
            assert!(refusal.field.is_some());
        }
    }
});
