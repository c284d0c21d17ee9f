//! The files of the live page.

use crate::server::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_runs_only_its_own_files() {
    let server = start().await;
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("content-security-policy"), "default-src 'self'; base-uri 'none'; frame-ancestors 'none'");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("cache-control"), "no-cache");
    let html = str::from_utf8(&page.body).unwrap();
    for inline in ["style=", "<style", "onclick", "onload", "javascript:"] {
        assert!(!html.contains(inline), "the policy of the page forbids {inline}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_page_is_served_with_its_type() {
    let server = start().await;
    let page = server.get("/").await;
    let html = str::from_utf8(&page.body).unwrap();
    let named = html.split(['"', '\'']).filter(|text| text.starts_with("assets/"));
    let mut types = Vec::new();
    for path in named {
        let asset = server.get(&format!("/{path}")).await;
        assert_eq!(asset.status, 200, "{path}");
        assert_eq!(asset.header("x-content-type-options"), "nosniff", "{path}");
        let content_type = asset.header("content-type").to_owned();
        let expected = match path.rsplit_once('.').unwrap().1 {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript",
            "svg" => "image/svg+xml",
            other => panic!("{other}"),
        };
        assert_eq!(content_type, expected, "{path}");
        types.push(content_type);
    }
    types.sort();
    types.dedup();
    assert_eq!(types.len(), 3, "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_file_is_not_sent_again() {
    let server = start().await;
    for path in ["/", "/assets/page.js", "/assets/vendor/uplot/uPlot.min.css"] {
        let first = server.get(path).await;
        let etag = first.header("etag");
        assert!(etag.len() > 10 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        for known in [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let again = server.get_with(path, &[("if-none-match", &known)]).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}: {known}");
            assert_eq!(again.header("etag"), etag);
        }
        let changed = server.get_with(path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!((changed.status, changed.body.len()), (200, first.body.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_assets() {
    let server = start().await;
    for target in [
        "/assets/../Cargo.toml",
        "/assets/../assets/page.js",
        "/assets/vendor/../page.js",
        "/assets/%2e%2e/Cargo.toml",
        "/assets/..%2fCargo.toml",
        "/assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/assets/..\\Cargo.toml",
        "/assets//etc/passwd",
        "/assets/%00",
        "/assets/",
        "/assets",
        "/assets/vendor",
        "/assets/missing.js",
        "/page.js",
    ] {
        let response = server.get_raw(target).await;
        let status: u16 = response.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((400..500).contains(&status), "{target}: {status}");
        assert!(
            !response.contains("[package]") && !response.contains("root:") && !response.contains("import "),
            "{target}"
        );
    }
}
