//! Describes in text why a call or a connection failed.
//!
//! A [`Status`](tonic::Status) that tonic created for a broken connection has a source. A status from a server has
//! none.

use std::error::Error;

/// Returns the text of the error and of its causes, without repetitions.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Returns the text of the innermost cause, which is the actual reason. The outer errors only add context.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Failed(&'static str, #[source] Option<Box<Failed>>);

    #[test]
    fn a_chain_has_each_cause_once_and_the_root_cause_is_the_last() {
        let refused = Failed("connection refused", None);
        let connecting = Failed("can't connect: connection refused", Some(Box::new(refused)));
        let error = Failed("transport error", Some(Box::new(connecting)));
        assert_eq!(chain(&error), "transport error: can't connect: connection refused");
        assert_eq!(root_cause(&error), "connection refused");
    }
}
