//! Schema entries of tasks and job manager tasks, and of the parts that all kinds of tasks share.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
CloudTask: add=TaskAddParameter manager=JobManagerTask put=TaskUpdateParameter get
  id id : add! manager! get! filter(Id)
  displayName text(1024) : add manager get | label
  url text : get
  eTag text : get
  lastModified time : get filter(ModifiedAt)
  creationTime time : get filter(CreatedAt)
  exitConditions ExitConditions : add get
  state word(active|preparing|running|completed) : get filter(State)
  stateTransitionTime time : get filter(StateAt)
  lastModifiedTime time : filter(ModifiedAt)
  previousState text : get
  previousStateTransitionTime time : get
  commandLine text(1..131071) : add! manager! get
  containerSettings TaskContainerSettings : add manager get | refused: Tasks run as processes of the node; containers are not served yet.
  resourceFiles [ResourceFile] : add manager get
  outputFiles [OutputFile] : add manager get
  environmentSettings [EnvironmentSetting] : add manager get
  affinityInfo AffinityInformation : add get | ignored: any node of the pool may take the task
  constraints TaskConstraints : add manager put get
  requiredSlots int(1..256) : add manager get since(2020-09-01)
  userIdentity UserIdentity : add manager get
  executionInfo TaskExecutionInformation : get
  nodeInfo ComputeNodeInformation : get
  multiInstanceSettings MultiInstanceSettings : add get | refused: Multi-instance tasks are not served yet.
  stats TaskStatistics : get
  dependsOn TaskDependencies : add get
  applicationPackageReferences [ApplicationPackageReference](..10) : add manager get
  authenticationTokenSettings AuthenticationTokenSettings : add manager get until(2025-06-01)
  piecework TaskExtensions : add manager get
  killJobOnCompletion flag : manager
  runExclusive flag : manager
  allowLowPriorityNode flag : manager

TaskAddCollectionParameter:
  value! [TaskAddParameter](1..) : apart

TaskExtensions:
  freshDirectory flag | ours: every run begins with an empty working directory; without, a further run on the same node finds it as the one before left it
  killGrace period(PT0S..PT10M) | ours: between SIGTERM and SIGKILL when a run is ended, PT0S to PT10M; PT2S without. An agent that is stopped itself waits 15 seconds at most
  traceparent text(1..128) | ours: W3C trace context of what asked for the task, kept with it; tasks submitted by message get it from the message's header

TaskConstraints:
  maxWallClockTime period(PT0.001S..)
  retentionTime period
  maxTaskRetryCount int(-1..)

ApplicationPackageReference:
  applicationId! id
  version version

EnvironmentSetting:
  name! text(1..32768)
  value text(131071)

MetadataItem:
  name! text(65536)
  value! text(65536)

NodeIdentity:
  resourceId text

ResourceFile:
  autoStorageContainerName text(63)
  storageContainerUrl text(8192)
  httpUrl text(8192)
  blobPrefix text(1024)
  filePath text(4096)
  fileMode text(16)
  identityReference NodeIdentity | refused: Use a presigned URL, or the configured blob store.
  blobSource text(8192)

OutputFile:
  filePattern! text(1..4096)
  destination! OutputFileDestination
  uploadOptions! OutputFileUploadOptions

OutputFileDestination:
  container! OutputFileContainer

OutputFileContainer:
  containerUrl! text(8192)
  path text(1024)
  identityReference NodeIdentity | refused: Uploads use the configured blob store's own credentials.
  uploadHeaders [HttpHeader]

OutputFileUploadOptions:
  uploadCondition! word(tasksuccess|taskfailure|taskcompletion)

HttpHeader:
  name! text(1..2048)
  value text(2048)

UserIdentity:
  username text | refused: Pools have no named users yet; leave userIdentity out or use autoUser.
  autoUser AutoUserSpecification | ignored: tasks run as the user of their node's agent, whatever scope and elevation say

AutoUserSpecification:
  scope word(task|pool)
  elevationLevel word(nonadmin|admin)

AffinityInformation:
  affinityId! text(1..1024)

AuthenticationTokenSettings:
  access [word(job)]

TaskContainerSettings:
  imageName! text
  containerRunOptions text
  registry object
  workingDirectory text
  containerHostBatchBindMounts [object] : since(2024-07-01)

MultiInstanceSettings:
  numberOfInstances int(1..)
  coordinationCommandLine! text
  commonResourceFiles [ResourceFile]

TaskDependencies:
  taskIds [id](..64000)
  taskIdRanges [TaskIdRange]

TaskIdRange:
  start! int(0..)
  end! int(0..)

ExitConditions:
  exitCodes [ExitCodeMapping]
  exitCodeRanges [ExitCodeRangeMapping]
  preProcessingError ExitOptions
  fileUploadError ExitOptions
  default ExitOptions

ExitCodeMapping:
  code! int
  exitOptions! ExitOptions

ExitCodeRangeMapping:
  start! int
  end! int
  exitOptions! ExitOptions

ExitOptions:
  jobAction word(none|disable|terminate)
  dependencyAction word(satisfy|block)

TaskExecutionInformation:
  startTime time : filter(StartedAt)
  endTime time : filter(EndedAt)
  exitCode int : filter(ExitCode)
  failureInfo TaskFailureInformation
  retryCount! int
  lastRetryTime time
  requeueCount! int
  lastRequeueTime time
  result word(success|failure) : filter(HasSucceeded)

TaskFailureInformation:
  category! word(usererror|servererror)
  code text
  message text
  details [NameValuePair]

ComputeNodeInformation:
  affinityId text
  nodeUrl text
  poolId text
  nodeId text
  taskRootDirectory text
  taskRootDirectoryUrl text

TaskStatistics:
  url! text
  startTime! time
  lastUpdateTime! time
  userCPUTime! period
  kernelCPUTime! period
  wallClockTime! period
  readIOps! long
  writeIOps! long
  readIOGiB! float
  writeIOGiB! float
  waitTime! period

TaskAddCollectionResult:
  value [TaskAddResult]

TaskAddResult:
  status! word(success|clienterror|servererror)
  taskId! text
  eTag text
  lastModified time
  location text
  error BatchError

SubtaskList:
  value [SubtaskInformation]

SubtaskInformation:
  id int
  nodeInfo ComputeNodeInformation
  startTime time
  endTime time
  exitCode int
  containerInfo object
  failureInfo TaskFailureInformation
  state text
  stateTransitionTime time
  previousState text
  previousStateTransitionTime time
  result word(success|failure)
";
