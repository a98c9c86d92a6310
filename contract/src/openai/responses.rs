//! `POST /v1/responses`, without state: the whole conversation comes with each request.

mod events;
mod request;
mod response;

pub use events::{Event, NumberedEvent};
pub use request::{
    FlatTool, Input, InputContent, InputItem, InputPart, InputRole, OutputValue, ResponsesRequest, TextFormat,
    TextOptions,
};
pub use response::{
    FunctionCallItem, IncompleteDetails, InputTokensDetails, MessageItem, OutputItem, OutputPart, OutputTokensDetails,
    ResponseBody, ResponseText, ResponseUsage, Status,
};
