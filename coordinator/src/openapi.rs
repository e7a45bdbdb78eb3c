//! The description of the API (OpenAPI 3.1), made from the routes and the types of their messages.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;

/// What does not come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Partita coordinator", description = "Errors have a status of 400 or above and a body with `error`."),
    components(schemas(control::EventView)),
    tags(
        (name = "applications", description = "What runs"),
        (name = "monitoring", description = "What is observed"),
        (name = "planning", description = "What is decided"),
        (name = "events", description = "What happened"),
        (name = "agent", description = "For agents only")
    )
)]
struct Base;

/// The description without routes.
pub fn base() -> Description {
    Base::openapi()
}

/// As JSON text, pretty-printed.
pub fn text(api: &Description) -> String {
    let mut text = api.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_in_docs_is_what_the_code_says() -> std::io::Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let written = std::fs::read_to_string(path)?;
        let made = crate::net::openapi();
        assert!(made == written, "write it anew: coordinator openapi > docs/openapi.json");
        assert!(made.matches("\"operationId\"").count() >= 17, "every route is described");
        Ok(())
    }
}
