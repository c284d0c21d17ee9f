//! Who may read single votes and datasets: whoever has the token.
//! Format: <https://www.rfc-editor.org/rfc/rfc6750#section-2.1>.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

/// The token. It is never shown.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ReadToken(Arc<str>);

impl ReadToken {
    /// The fewest characters a token may have.
    pub const MIN_BYTES: usize = 16;

    /// Takes the token's text.
    ///
    /// # Errors
    /// If it is too short to be kept secret, or can't stand in a header.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() < Self::MIN_BYTES {
            let (length, least) = (text.len(), Self::MIN_BYTES);
            return Err(format!("the token has {length} characters; it needs at least {least}"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token has other characters than letters, digits and punctuation".to_owned());
        }
        Ok(Self(text.into()))
    }

    /// Whether this is the token's `Authorization` header. How long that takes says nothing of where they differ.
    pub fn is_in(&self, authorization: &str) -> bool {
        let Some((scheme, token)) = authorization.split_once(' ') else { return false };
        let (given, token) = (token.trim().as_bytes(), self.0.as_bytes());
        let differences = given.iter().zip(token).fold(0, |differences, (a, b)| differences | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differences == 0
    }

    /// The value of the header `Authorization`.
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
    fn only_the_whole_token_is_it_and_it_is_never_shown() {
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
