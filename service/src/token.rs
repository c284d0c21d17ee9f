//! The token with which clients may read single votes and datasets. It is a bearer token:
//! <https://www.rfc-editor.org/rfc/rfc6750#section-2.1>.

use std::{fmt, fs, path::Path, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};
use subtle::ConstantTimeEq;

/// The read token. Neither `Debug` nor `Serialize` reveals its text.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ReadToken(Arc<str>);

impl ReadToken {
    /// The minimum length of a token, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// Creates a token from its text.
    ///
    /// # Errors
    /// If the text is too short for a secret or can't be sent in a header.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() < Self::MIN_BYTES {
            let (length, min) = (text.len(), Self::MIN_BYTES);
            return Err(format!("the token has {length} characters; it needs at least {min}"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token may have only ASCII letters, digits and punctuation".to_owned());
        }
        Ok(Self(text.into()))
    }

    /// Returns the token for the requests of a command: the token in the file, else the one in `OVATION_READ_TOKEN`,
    /// else `None`.
    ///
    /// # Errors
    /// If the file or the variable has no valid token. The error names the file or the variable.
    pub fn for_command(file: Option<&Path>) -> Result<Option<Self>, String> {
        const VARIABLE: &str = "OVATION_READ_TOKEN";
        let (source, text) = match (file, std::env::var(VARIABLE)) {
            (Some(file), _) => {
                (file.display().to_string(), fs::read_to_string(file).map_err(|error| error.to_string()))
            }
            (None, Ok(token)) => (VARIABLE.to_owned(), Ok(token)),
            (None, Err(_)) => return Ok(None),
        };
        // An editor adds a line break at the end of a file.
        let text = text.map(|text| if file.is_some() { text.trim_ascii_end().to_owned() } else { text });
        let token = text.and_then(|text| Self::new(&text));
        token.map(Some).map_err(|problem| format!("the token of {source}: {problem}"))
    }

    /// Returns whether an `Authorization` header has this token. The comparison takes constant time, so it does not
    /// reveal where the two differ.
    pub fn is_in(&self, authorization: &str) -> bool {
        let Some((scheme, token)) = authorization.split_once(' ') else { return false };
        let is_token = token.trim().as_bytes().ct_eq(self.0.as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && is_token.into()
    }

    /// Returns the value of the header `Authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl TryFrom<String> for ReadToken {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl Serialize for ReadToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("..")
    }
}

impl fmt::Debug for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches_and_it_is_never_shown() {
        let token = ReadToken::new("0123456789abcdef").unwrap();
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "Bearer  0123456789abcdef "] {
            assert!(token.is_in(right), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeF",
        ] {
            assert!(!token.is_in(wrong), "{wrong}");
        }
        assert!(token.is_in(&token.authorization()));
        assert!(!format!("{token:?}").contains("0123"));
        for bad in ["short", "0123456789 abcdef", "0123456789abcde\u{e9}"] {
            assert!(ReadToken::new(bad).is_err(), "{bad}");
        }
    }
}
