//! Who may read single votes and datasets.

use rocket::{
    Request,
    http::Status,
    request::{FromRequest, Outcome},
};
use service::token::ReadToken;

/// What a reader has to show.
pub(crate) struct Access(Option<ReadToken>);

impl Access {
    pub(crate) fn new(token: Option<ReadToken>) -> Self {
        Self(token)
    }
}

/// One who may read. A route that has one asks for the token where one is configured.
pub(crate) struct Allowed;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Allowed {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let Some(Access(token)) = request.rocket().state::<Access>() else {
            return Outcome::Error((Status::InternalServerError, ()));
        };
        let given = || request.headers().get_one("Authorization").unwrap_or_default();
        match token {
            Some(token) if !token.is_in(given()) => Outcome::Error((Status::Unauthorized, ())),
            _ => Outcome::Success(Self),
        }
    }
}
