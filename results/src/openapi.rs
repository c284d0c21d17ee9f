//! The list of all documented routes. The served routes and `GET /openapi.json` (`OpenAPI` 3.1) come from this list.

use api::Problem;
use rocket::{Route, State, get, response::content::RawJson, routes};
use service::openapi::Document;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{
    import::routes as import,
    live::{albums, rates, stream, tally},
    query::{datasets, invalidate, votes},
};

/// Creates the routes and their documentation from one list.
macro_rules! documented_routes {
    ($($($part:ident)::+),+ $(,)?) => {
        /// Returns all documented routes.
        fn documented_routes() -> Vec<Route> {
            routes![$($($part)::+),+]
        }

        #[derive(OpenApi)]
        #[openapi(
            info(title = "Ovation results", description = "Live tallies of contests, queries about counted votes and datasets, and the import of files."),
            paths($($($part)::+),+),
            components(schemas(Problem)),
            modifiers(&Token)
        )]
        struct Results;
    };
}

documented_routes![
    tally::contests,
    tally::tally,
    stream::tally_stream,
    albums::albums,
    rates::rates,
    rates::settled_rates,
    votes::find_votes,
    datasets::datasets,
    datasets::find_rows,
    invalidate::invalidate,
    import::import_dataset,
    import::remove_dataset,
    import::import_votes,
    import::import,
];

/// Adds the security scheme: the read token is a bearer token.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", bearer);
    }
}

/// Returns the documented routes, and the route of the document itself.
pub(crate) fn routes() -> Vec<Route> {
    [documented_routes(), routes![openapi]].concat()
}

/// Creates the document.
pub(crate) fn document() -> Document {
    Document::new(Results::openapi())
}

#[get("/openapi.json")]
fn openapi(document: &State<Document>) -> RawJson<&str> {
    RawJson(document.json())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_every_documented_route_exists() {
        let routes = routes().into_iter().map(|route| (route.method.as_str(), route.uri.path().to_owned()));
        let served: BTreeSet<String> = routes
            .filter(|(_, path)| path.starts_with("/v1/"))
            .map(|(method, path)| format!("{method} {}", path.replace('<', "{").replace('>', "}")))
            .collect();
        let document: serde_json::Value = serde_json::from_str(document().json()).unwrap();
        let documented: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        assert_eq!(served, documented);
        assert!(served.len() >= 6);
    }
}
