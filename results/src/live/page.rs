//! The live page. The files of the page are embedded in the program.

use rocket::{
    Request, Response, get,
    http::{
        ContentType, Status,
        uri::{Segments, fmt::Path},
    },
    response::Responder,
};
use rust_embed::{Embed, EmbeddedFile};

/// The page may load only its own files, so no other code can run in the page. No page may embed it in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Embed)]
#[folder = "assets/"]
struct Assets;

/// A file of the page.
pub(crate) struct Asset {
    content_type: ContentType,
    file: EmbeddedFile,
}

impl Asset {
    fn find(name: &str) -> Option<Self> {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let content_type = extension.and_then(ContentType::from_extension).unwrap_or(ContentType::Plain);
        Assets::get(name).map(|file| Self { content_type, file })
    }

    fn etag(&self) -> String {
        let hash = self.file.metadata.sha256_hash();
        hash[..16].iter().fold("\"".to_owned(), |etag, byte| format!("{etag}{byte:02x}")) + "\""
    }
}

#[get("/")]
pub(crate) fn index() -> Option<Asset> {
    Asset::find("index.html")
}

#[get("/assets/<path..>")]
pub(crate) fn asset(path: Segments<'_, Path>) -> Option<Asset> {
    Asset::find(&path.collect::<Vec<_>>().join("/"))
}

impl<'r> Responder<'r, 'static> for Asset {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let etag = self.etag();
        let mut response = Response::build();
        // Browsers must revalidate each file (the usual response is a 304). Otherwise a page could run with scripts of
        // another version.
        response.raw_header("Cache-Control", "no-cache").raw_header("ETag", etag.clone());
        if request.headers().get("If-None-Match").any(|list| matches(list, &etag)) {
            return response.status(Status::NotModified).ok();
        }
        response
            .header(self.content_type)
            .raw_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .sized_body(self.file.data.len(), std::io::Cursor::new(self.file.data))
            .ok()
    }
}

/// Returns whether a list of `If-None-Match` has the `ETag`, by weak comparison (RFC 9110, section 13.1.2).
fn matches(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|listed| listed == "*" || listed.trim_start_matches("W/") == etag)
}
