//! Creates a Rocket and serves its routes.

use rocket::{
    Build, Rocket, catchers,
    config::{Ident, LogLevel},
    local::asynchronous::Client,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{connections, errors, request_id::RequestId};
use crate::serve::{ServeError, address_of};

/// Creates a Rocket without routes. Its responses have request ids and response times, and its errors are problems.
pub fn rocket() -> Rocket<Build> {
    rocket::build().attach(RequestId).register("/", catchers![errors::any_error])
}

/// Serves a Rocket until shutdown, then waits for open requests to end, for a limited time.
///
/// # Errors
/// If Rocket can't start with these routes and states.
pub async fn serve(
    server: &'static str,
    rocket: Rocket<Build>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let config = rocket::Config {
        ident: Ident::none(),
        log_level: LogLevel::Off,
        cli_colors: false,
        ..rocket::Config::release_default()
    };
    let address = address_of(&listener);
    let client = Client::untracked(rocket.configure(config)).await;
    let client = client.map_err(|error| ServeError::new(server, address, &error.kind()))?;
    tracing::info!(server, %address, "listening");
    connections::serve(listener, client, shutdown).await;
    Ok(())
}
