//! Refusals of requests, with Azure Batch's error codes. API handlers turn them into HTTP answers.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $status:literal),+ $(,)?) => {
        /// Azure Batch's error codes that Piecework answers with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($name),+ }
        impl Code {
            /// The wire spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),+ }
            }
            /// The HTTP status that belongs to the code.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status),+ }
            }
        }
    };
}

codes! {
    MissingRequiredHeader = 400, MissingRequiredProperty = 400, UnsupportedHeader = 400, UnsupportedProperty = 400,
    InvalidHeaderValue = 400, InvalidPropertyValue = 400, MissingRequiredQueryParameter = 400, UnsupportedQueryParameter = 400,
    InvalidQueryParameterValue = 400, OutOfRangeQueryParameterValue = 400, RequestUrlFailedToParse = 400, InvalidUri = 400,
    InvalidHttpVerb = 400, EmptyMetadataKey = 400, InvalidRequestBody = 400, OutOfRangeInput = 400, InvalidAuthenticationInfo = 400,
    InvalidInput = 400, InvalidMetadata = 400, MetadataTooLarge = 400, MultipleConditionHeadersNotSupported = 400,
    UnsupportedRequestVersion = 400, InvalidAutoScalingSettings = 400, AutoScalingFormulaSyntaxError = 400, AutoScaleFormulaTooLong = 400, TaskDependenciesNotSpecifiedOnJob = 400,
    TaskDependencyListTooLong = 400, TaskDependencyRangesTooLong = 400,
    Unauthorized = 401,
    AuthenticationFailed = 403, InsufficientAccountPermissions = 403,
    ResourceNotFound = 404, PoolNotFound = 404, NodeNotFound = 404, JobNotFound = 404, ApplicationNotFound = 404, JobScheduleNotFound = 404, TaskNotFound = 404, FunctionNotFound = 404, TriggerNotFound = 404, FileNotFound = 404, CertificateNotFound = 404,
    UnsupportedHttpVerb = 405,
    OperationInvalidForCurrentState = 409, PoolBeingDeleted = 409, PoolBeingResized = 409, PoolExists = 409, JobExists = 409, TaskExists = 409,
    NodeAlreadyInTargetSchedulingState = 409, NodeStateUnusable = 409, InvalidApplicationPackageReferences = 409, NodeBeingCreated = 409, NodeBeingStarted = 409,
    NodeBeingReimaged = 409, NodeBeingRebooted = 409, OperationNotValidOnNode = 409,
    JobScheduleExists = 409, FunctionExists = 409, TriggerExists = 409, JobWithSameIdExists = 409, JobScheduleWithSameIdExists = 409, JobScheduleCompleted = 409,
    JobScheduleBeingTerminated = 409, JobScheduleBeingDeleted = 409,
    JobBeingTerminated = 409, JobBeingDeleted = 409, JobDisabled = 409, JobCompleted = 409, JobNotActive = 409,
    TaskCompleted = 409, TaskNotCompleted = 409, TaskSucceeded = 409, TaskFilesUnavailable = 409, TaskFilesCleanedup = 409, JobPreparationTaskNotSpecified = 409,
    TaskIdSameAsJobPreparationTask = 409, TaskIdSameAsJobReleaseTask = 409,
    MissingContentLengthHeader = 411,
    ConditionNotMet = 412,
    RequestBodyTooLarge = 413,
    InvalidRange = 416,
    InternalError = 500,
    NotImplemented = 501,
    ServerBusy = 503, TooManyEnableAutoScaleRequests = 503, OperationTimedOut = 500,
}

/// The reason why a request was refused. A refused request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// Facts as name and value; the one named `Hint` says what to do next.
    pub values: Vec<(String, String)>,
}

impl Refusal {
    /// A refusal without further facts.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), values: Vec::new() }
    }

    /// Adds a fact to `values`.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Refusal {
        self.values.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds the text that says what to do next.
    pub fn hint(self, text: &str) -> Refusal {
        self.with("Hint", text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Refusal {}
