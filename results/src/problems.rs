//! Error responses: the response if a store does not respond, and the documentation of the problems for the routes.

use std::collections::BTreeMap;

use rocket::http::Status;
use service::{
    http::Problem,
    openapi::{problem, problems},
};
use utoipa::{
    IntoResponses,
    openapi::{RefOr, Response},
};
use votes::{Reason, StoreError};

/// Returns the problem of a store that can't be read (503). Clients must not receive the driver's error, which is only
/// logged.
pub(crate) fn unavailable(error: &StoreError) -> Problem {
    Problem::plain(Status::ServiceUnavailable, unavailable_detail(error))
}

pub(crate) fn unavailable_detail(error: &StoreError) -> String {
    format!("the {} can't be read now; try again", error.store)
}

/// The name of the schema of a problem.
const SCHEMA: &str = "Problem";

/// Defines a type for each problem. The documentation of a route names these types among its responses.
macro_rules! documented {
    ($($(#[$doc:meta])* $name:ident => $responses:expr;)+) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    $responses
                }
            }
        )+
    };
}

documented! {
    /// 401: the read token is missing or wrong.
    TokenRequired => plain(Status::Unauthorized, "The read token is missing or wrong");
    /// 404: the contest is unknown.
    UnknownContest => problems(SCHEMA, &[Reason::UnknownContest]);
    /// 404: the dataset is unknown.
    UnknownDataset => plain(Status::NotFound, "There is no such dataset");
    /// 404: the import is unknown.
    UnknownImport => plain(Status::NotFound, "There is no such import");
    /// 409: a dataset with this name exists.
    DatasetExists => plain(Status::Conflict, "There is a dataset with this name");
    /// 422: a parameter is invalid.
    InvalidParameter => problems(SCHEMA, &[Reason::InvalidField]);
    /// The problems of an uploaded file and of its form.
    InvalidUpload => problems(
        SCHEMA,
        &[
            Reason::MalformedBody,
            Reason::SlowBody,
            Reason::TooLarge,
            Reason::UnsupportedMediaType,
            Reason::InvalidField,
        ],
    );
    /// 503: a store does not respond.
    StoreUnavailable => plain(Status::ServiceUnavailable, "A store does not respond");
    /// 503: a stream can't be opened.
    StreamUnavailable => plain(Status::ServiceUnavailable, "A store does not respond, or there are too many streams");
}

/// Documents a problem that has only a status, and no [`Reason`].
fn plain(status: Status, description: &str) -> BTreeMap<String, RefOr<Response>> {
    [(status.code.to_string(), problem(SCHEMA, description).into())].into()
}
