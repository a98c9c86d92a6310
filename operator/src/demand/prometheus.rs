//! Asks a Prometheus server for the load.

use reqwest::Client;
use serde::Deserialize;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The server did not answer, or not in time.
    #[error("Prometheus does not answer")]
    Http(#[source] reqwest::Error),
    /// The server refuses the query.
    #[error("Prometheus refuses the query: {0}")]
    Refused(String),
    /// The query gives no value: the series are missing, which is not the same as 0.
    #[error("the query has no result")]
    Nothing,
    /// The query gives several values.
    #[error("the query has {0} results instead of one; sum over them")]
    Several(usize),
    /// The value is not a finite number.
    #[error("the query's result {0:?} is no number")]
    NotANumber(String),
}

impl QueryError {
    /// Prometheus works, but has no series of the model.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// Puts the names of a model into a query.
pub fn substitute(query: &str, namespace: &str, name: &str) -> String {
    query.replace("$namespace", namespace).replace("$name", name)
}

/// Evaluates a query now. The client has the time limit.
pub async fn query(http: &Client, base: &str, query: &str) -> Result<f64, QueryError> {
    let url = format!("{}/api/v1/query", base.trim_end_matches('/'));
    let answer = http.get(url).query(&[("query", query)]).send().await.map_err(QueryError::Http)?;
    // Prometheus explains a refused query in the body of a 4xx.
    value(&answer.json::<Answer>().await.map_err(QueryError::Http)?)
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Element>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Element {
    value: (f64, String),
}

fn value(answer: &Answer) -> Result<f64, QueryError> {
    let text = match &answer.data {
        Some(Data::Vector(elements)) => match elements.as_slice() {
            [] => return Err(QueryError::Nothing),
            [one] => &one.value.1,
            several => return Err(QueryError::Several(several.len())),
        },
        Some(Data::Scalar((_, text))) => text,
        Some(Data::Matrix(_) | Data::String(_)) => {
            return Err(QueryError::Refused("it must give an instant vector or a scalar".to_owned()));
        }
        None => return Err(QueryError::Refused(answer.error.clone().unwrap_or_default())),
    };
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(QueryError::NotANumber(text.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<f64, QueryError> {
        value(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn one_value_is_read_whether_vector_or_scalar() {
        let vector =
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"12.5"]}]}}"#;
        assert_eq!(read(vector).unwrap(), 12.5);
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"3"]}}"#;
        assert_eq!(read(scalar).unwrap(), 3.0);
    }

    #[test]
    fn nothing_several_and_no_number_are_not_zero() {
        let of = |result: &str| {
            read(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#))
        };
        assert!(matches!(of("[]"), Err(error @ QueryError::Nothing) if error.is_absence()));
        let one = r#"{"metric":{},"value":[1,"1"]}"#;
        assert!(matches!(of(&format!("[{one},{one}]")), Err(QueryError::Several(2))));
        assert!(matches!(of(r#"[{"metric":{},"value":[1,"NaN"]}]"#), Err(QueryError::NotANumber(_))));
        let refused = read(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#);
        assert!(refused.as_ref().is_err_and(|error| !error.is_absence()));
        assert!(matches!(refused, Err(QueryError::Refused(why)) if why == "parse error"));
    }

    #[test]
    fn the_names_of_the_model_are_put_in() {
        let query = r#"sum(x{namespace="$namespace",model="$name"})"#;
        assert_eq!(substitute(query, "shop", "tiny"), r#"sum(x{namespace="shop",model="tiny"})"#);
    }
}
