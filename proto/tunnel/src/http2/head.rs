//! Heads between the types of HTTP/2 and our own.

use adit_proto::http3::{Field, RequestHead, ResponseHead};
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::Http2Error;

pub(super) fn request_head<B>(request: &Request<B>) -> Result<RequestHead, Http2Error> {
    let uri = request.uri();
    let protocol = request.extensions().get::<Protocol>();
    let pseudo = [
        (":method", Some(request.method().as_str())),
        (":protocol", protocol.map(Protocol::as_str)),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(Authority::as_str)),
        (":path", uri.path_and_query().map(PathAndQuery::as_str)),
    ];
    let mut fields: Vec<Field> =
        pseudo.into_iter().filter_map(|(name, value)| Some(Field::new(name, value?))).collect();
    extend_from_headers(&mut fields, request.headers())?;
    RequestHead::try_from_fields(fields).map_err(|_error| Http2Error::Malformed)
}

pub(super) fn response_head<B>(response: &Response<B>) -> Result<ResponseHead, Http2Error> {
    let mut headers = Vec::new();
    extend_from_headers(&mut headers, response.headers())?;
    Ok(ResponseHead { status: response.status().as_u16(), headers })
}

pub(super) fn request_of(head: &RequestHead) -> Result<Request<()>, Http2Error> {
    let malformed = |_error| Http2Error::Malformed;
    let mut parts = http::uri::Parts::default();
    let parse = |text: &Option<String>| text.clone().unwrap_or_default();
    if head.authority.is_some() {
        parts.authority = Some(Authority::try_from(parse(&head.authority)).map_err(malformed)?);
    }
    if let Some(scheme) = &head.scheme {
        parts.scheme = Some(Scheme::try_from(scheme.as_str()).map_err(malformed)?);
        parts.path_and_query = Some(PathAndQuery::try_from(parse(&head.path)).map_err(malformed)?);
    }
    let uri = Uri::from_parts(parts).map_err(|_error| Http2Error::Malformed)?;
    let mut request = Request::builder()
        .method(head.method.as_str())
        .uri(uri)
        .body(())
        .map_err(|_error| Http2Error::Malformed)?;
    if let Some(protocol) = &head.protocol {
        request.extensions_mut().insert(Protocol::from(protocol.as_str()));
    }
    for field in &head.headers {
        let (name, value) = header_of(field).ok_or(Http2Error::Malformed)?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// A field that HTTP/2 cannot express is left out.
pub(super) fn response_of(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in head.headers.iter().filter_map(header_of) {
        response.headers_mut().append(name, value);
    }
    response
}

fn header_of(field: &Field) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(field.name.as_str()).ok()?;
    let mut value = HeaderValue::try_from(field.value.as_str()).ok()?;
    value.set_sensitive(field.is_credential());
    Some((name, value))
}

fn extend_from_headers(fields: &mut Vec<Field>, headers: &HeaderMap) -> Result<(), Http2Error> {
    for (name, value) in headers {
        let value = value.to_str().map_err(|_error| Http2Error::Malformed)?;
        fields.push(Field::new(name.as_str(), value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(protocol: Option<&str>, path: Option<&str>) -> RequestHead {
        RequestHead {
            method: "CONNECT".to_owned(),
            protocol: protocol.map(str::to_owned),
            scheme: path.map(|_path| "https".to_owned()),
            authority: Some("wiki.example:443".to_owned()),
            path: path.map(str::to_owned),
            headers: vec![Field::new("authorization", "Bearer x"), Field::new("a", "b")],
        }
    }

    #[test]
    fn requests_survive_a_round_trip() {
        let path = "/.well-known/masque/ip/*/*/";
        for head in [head(None, None), head(Some("connect-ip"), Some(path))] {
            let request = request_of(&head).unwrap();
            assert_eq!(request_head(&request).unwrap(), head);
        }
    }

    #[test]
    fn a_credential_is_kept_out_of_tables_and_logs() {
        let request = request_of(&head(None, None)).unwrap();
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!request.headers()["a"].is_sensitive());
    }

    #[test]
    fn an_answer_goes_out_without_what_cannot_be_said() {
        let headers = vec![Field::new("a", "line\nfeed"), Field::new("b", "c")];
        let response = response_of(&ResponseHead { status: 403, headers });
        let said = ResponseHead { status: 403, headers: vec![Field::new("b", "c")] };
        assert_eq!(response_head(&response).unwrap(), said);
    }
}
