//! Schema entries of jobs, job schedules, and the tasks and pools inside them.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
CloudJob: add=JobAddParameter part=JobSpecification patch=JobPatchParameter put=JobUpdateParameter get
  id id : add!
  id text : get! filter(Id)
  displayName text(1024) : add get | label
  usesTaskDependencies flag : add get
  url text : get
  eTag text : get
  lastModified time : get filter(ModifiedAt)
  creationTime time : get filter(CreatedAt)
  state word(active|disabling|disabled|enabling|terminating|completed|deleting) : get filter(State)
  stateTransitionTime time : get filter(StateAt)
  previousState text : get
  previousStateTransitionTime time : get
  priority int(-1000..1000) : add patch put get
  allowTaskPreemption flag : add patch put get since(2022-01-01) | checked, refused: Running tasks are never taken back for others; leave it out.
  maxParallelTasks int(-1..) : add patch put get since(2021-06-01)
  constraints JobConstraints : add patch put get
  jobManagerTask JobManagerTask : add get
  jobPreparationTask JobPreparationTask : add get
  jobReleaseTask JobReleaseTask : add get
  commonEnvironmentSettings [EnvironmentSetting] : add get
  poolInfo PoolInformation : add! patch put! get
  onAllTasksComplete word(noaction|terminatejob) : add patch put get
  onTaskFailure word(noaction|performexitoptionsjobaction) : add get
  networkConfiguration JobNetworkConfiguration : add patch put select | refused: Nodes use the network of the machine they run on.
  metadata [MetadataItem] : add patch put get | label
  executionInfo JobExecutionInformation : get
  stats JobStatistics : get

JobDisableParameter:
  disableTasks! word(requeue|terminate|wait)

JobTerminateParameter:
  terminateReason text(1024)

JobConstraints:
  maxWallClockTime period(PT0.001S..)
  maxTaskRetryCount int(-1..)

PoolInformation:
  poolId! id : excludes(autoPoolSpecification)
  autoPoolSpecification AutoPoolSpecification

AutoPoolSpecification:
  autoPoolIdPrefix text(20)
  poolLifetimeOption! word(job|jobschedule)
  keepAlive flag
  pool PoolSpecification

JobNetworkConfiguration:
  subnetId! text
  skipWithdrawFromVNet flag

JobPreparationTask:
  id id
  commandLine! text(1..131071)
  containerSettings TaskContainerSettings | refused: Containers are not served yet.
  resourceFiles [ResourceFile]
  environmentSettings [EnvironmentSetting]
  constraints TaskConstraints
  waitForSuccess flag
  userIdentity UserIdentity
  rerunOnNodeRebootAfterSuccess flag

JobReleaseTask:
  id id
  commandLine! text(1..131071)
  containerSettings TaskContainerSettings | refused: Containers are not served yet.
  resourceFiles [ResourceFile]
  environmentSettings [EnvironmentSetting]
  maxWallClockTime period(PT0.001S..PT15M)
  retentionTime period
  userIdentity UserIdentity

JobExecutionInformation:
  startTime! time : filter(CreatedAt)
  endTime time : filter(EndedAt)
  poolId id : filter(Pool)
  schedulingError object
  terminateReason text

JobStatistics:
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
  numSucceededTasks! long
  numFailedTasks! long
  numTaskRetries! long
  waitTime! period

TaskCountsResult:
  taskCounts! TaskCounts
  taskSlotCounts! TaskCounts

TaskCounts:
  active! int
  running! int
  completed! int
  succeeded! int
  failed! int

PreparationAndReleaseStatus:
  poolId text : filter(Pool)
  nodeId text : filter(Id)
  nodeUrl text
  jobPreparationTaskExecutionInfo JobPreparationTaskExecutionInformation
  jobReleaseTaskExecutionInfo JobReleaseTaskExecutionInformation

JobPreparationTaskExecutionInformation:
  startTime! time : filter(Preparation.StartedAt)
  endTime time : filter(Preparation.EndedAt)
  state! word(running|completed) : filter(Preparation.State)
  taskRootDirectory text
  taskRootDirectoryUrl text
  exitCode int : filter(Preparation.ExitCode)
  failureInfo TaskFailureInformation
  retryCount! int
  lastRetryTime time
  result word(success|failure) : filter(Preparation.HasSucceeded)

JobReleaseTaskExecutionInformation:
  startTime! time : filter(Release.StartedAt)
  endTime time : filter(Release.EndedAt)
  state! word(running|completed) : filter(Release.State)
  taskRootDirectory text
  taskRootDirectoryUrl text
  exitCode int : filter(Release.ExitCode)
  failureInfo TaskFailureInformation
  result word(success|failure) : filter(Release.HasSucceeded)

CloudJobSchedule: add=JobScheduleAddParameter patch=JobSchedulePatchParameter put=JobScheduleUpdateParameter get
  id id : add! get! filter(Id)
  displayName text(1024) : add get | label
  url text : get
  eTag text : get
  lastModified time : get filter(ModifiedAt)
  creationTime time : get filter(CreatedAt)
  state word(active|completed|disabled|terminating|deleting) : get filter(State)
  stateTransitionTime time : get filter(StateAt)
  previousState text : get
  previousStateTransitionTime time : get
  schedule Schedule : add! patch put! get
  jobSpecification JobSpecification : add! patch put! get
  executionInfo JobScheduleExecutionInformation : get
  metadata [MetadataItem] : add patch put get | label
  stats JobStatistics : get

Schedule:
  doNotRunUntil time : filter(NotUntil)
  doNotRunAfter time : filter(NotAfter)
  startWindow period(PT1M..)
  recurrenceInterval period(PT1M..)

JobScheduleExecutionInformation:
  nextRunTime time
  recentJob RecentJob
  endTime time : filter(EndedAt)

RecentJob:
  id text
  url text
";
