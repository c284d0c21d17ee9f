//! The live page, from the program itself.

use rocket::{
    Request, Response, get,
    http::{
        ContentType, Status,
        uri::{Segments, fmt::Path},
    },
    response::Responder,
};
use rust_embed::{Embed, EmbeddedFile};

/// The page does all it does with its own files, so nothing else may run in it, and no other page may frame it.
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
        // Always asked for again, so that a page never runs with scripts of another version; mostly answered by 304.
        response.raw_header("Cache-Control", "no-cache").raw_header("ETag", etag.clone());
        if request.headers().get("If-None-Match").any(|known| matches(known, &etag)) {
            return response.status(Status::NotModified).ok();
        }
        response
            .header(self.content_type)
            .raw_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .sized_body(self.file.data.len(), std::io::Cursor::new(self.file.data))
            .ok()
    }
}

/// RFC 9110, section 13.1.2: any of a list, compared weakly.
fn matches(known: &str, etag: &str) -> bool {
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}
