//! Access control for single votes and datasets.

use rocket::{
    Request,
    http::Status,
    request::{FromRequest, Outcome},
};
use service::token::ReadToken;

/// The token that readers must present, or `None` if no token is configured.
pub(crate) struct Access(Option<ReadToken>);

impl Access {
    pub(crate) fn new(token: Option<ReadToken>) -> Self {
        Self(token)
    }
}

/// A request guard. A route with this guard refuses requests without the configured token. If no token is configured,
/// the route accepts all requests.
pub(crate) struct Authorized;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Authorized {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let Some(Access(token)) = request.rocket().state::<Access>() else {
            return Outcome::Error((Status::InternalServerError, ()));
        };
        let authorization = || request.headers().get_one("Authorization").unwrap_or_default();
        match token {
            Some(token) if !token.is_in(authorization()) => Outcome::Error((Status::Unauthorized, ())),
            _ => Outcome::Success(Self),
        }
    }
}
