//! Schema entries of nodes and of requests for them.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
ComputeNode: get
  id id : get! filter(Id)
  url text : get
  state word(idle|rebooting|reimaging|running|unusable|creating|starting|waitingforstarttask|starttaskfailed|unknown|leavingpool|offline|preempted|upgradingos|deallocated|deallocating) : get filter(State)
  schedulingState word(enabled|disabled) : get
  stateTransitionTime time : get filter(StateAt)
  lastBootTime time : get filter(BootedAt)
  allocationTime time : get filter(AllocatedAt)
  ipAddress text : get
  ipv6Address text : select
  affinityId text : get
  vmSize text : get
  totalTasksRun int : get
  runningTasksCount int : get
  runningTaskSlotsCount int : get since(2020-09-01)
  totalTasksSucceeded int : get
  recentTasks [TaskInformation] : get
  startTask StartTask : get
  startTaskInfo StartTaskInformation : get
  certificateReferences [CertificateReference] : select
  errors [ComputeNodeError] : get
  isDedicated flag : get
  endpointConfiguration object : select
  nodeAgentInfo NodeAgentInformation : get
  virtualMachineInfo object : get since(2021-06-01)

ComputeNodeError:
  code text
  message text
  errorDetails [NameValuePair]

NodeAgentInformation:
  version! text
  lastUpdateTime! time

StartTaskInformation:
  state! word(running|completed) : filter(StartState)
  startTime! time : filter(StartedAt)
  endTime time : filter(EndedAt)
  exitCode int : filter(ExitCode)
  failureInfo TaskFailureInformation
  retryCount! int
  lastRetryTime time
  result word(success|failure) : filter(HasSucceeded)

TaskInformation:
  taskUrl text
  jobId text
  taskId text
  subtaskId int
  taskState! text
  executionInfo TaskExecutionInformation

NodeRebootParameter:
  nodeRebootOption word(requeue|terminate|taskcompletion|retaineddata) : wrapped

NodeReimageParameter:
  nodeReimageOption word(requeue|terminate|taskcompletion|retaineddata) : wrapped

NodeDeallocateParameter:
  nodeDeallocateOption word(requeue|terminate|taskcompletion|retaineddata) : wrapped

NodeDisableSchedulingParameter:
  nodeDisableSchedulingOption word(requeue|terminate|taskcompletion) : wrapped

ComputeNodeUser:
  name! text(1..20)
  isAdmin flag
  expiryTime time
  password text(256)
  sshPublicKey text(32768) : excludes(password)

NodeUpdateUserParameter:
  password text(256)
  expiryTime time
  sshPublicKey text(32768) : excludes(password)

UploadBatchServiceLogsConfiguration:
  containerUrl! text(8192)
  startTime! time
  endTime time
  identityReference NodeIdentity | refused: The configured blob store's credentials are used.

UploadBatchServiceLogsResult:
  virtualDirectoryName! text
  numberOfFilesUploaded! int

RemoteLoginSettings:
  remoteLoginIPAddress! text
  remoteLoginPort! int

NodeVMExtension:
  provisioningState text
  vmExtension object
  instanceView object

NodeCounts:
  creating! int
  idle! int
  offline! int
  preempted! int
  rebooting! int
  reimaging! int
  running! int
  starting! int
  startTaskFailed! int
  leavingPool! int
  unknown! int
  unusable! int
  waitingForStartTask! int
  upgradingOS! int : since(2024-02-01)
  deallocated int : since(2024-07-01)
  deallocating int : since(2024-07-01)
  total! int

PoolNodeCounts:
  poolId! id : filter(Id)
  dedicated NodeCounts
  lowPriority NodeCounts
";
