package berth

import (
	"context"
	"iter"
	"net"
	"time"
)

// Service is everything that Berth does, for the command line and for
// frameworks alike. Methods are safe for concurrent use. Errors are *Error.
//
// Who asks is the context's [Caller]. What they may not see is CodeNotFound to
// them, what they may see and not do is CodeForbidden.
//
// Every method may be called again after an error with CodeUnavailable: none
// does twice what it did already.
type Service interface {
	// Info says who answers.
	Info(ctx context.Context) (Info, error)

	// SubmitTask stores a task, and returns once it is stored and, where there
	// is room, its pod's creation was tried. The same key gives the same task.
	// CodeInvalid for a spec that can't run, and an error with a Diagnosis for
	// one that the infrastructure would never take, with nothing stored.
	SubmitTask(ctx context.Context, submission Submission) (Task, error)

	// Task returns a task by its id. CodeNotFound when there is none.
	Task(ctx context.Context, id string) (Task, error)

	// Tasks lists tasks, newest first.
	Tasks(ctx context.Context, query TaskQuery) (TaskPage, error)

	// WatchTask yields the task as it is and then each time that it changed,
	// until it has ended. Changes in quick succession may be yielded as one.
	WatchTask(ctx context.Context, id string) iter.Seq2[Task, error]

	// TaskEvents yields what happened to a task with a Seq above after, in
	// order; with follow until the task has ended.
	TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[Event, error]

	// TaskLogs yields the output of a task's attempt; with Follow until all of
	// it is there or is known to be lost.
	TaskLogs(ctx context.Context, id string, query LogQuery) iter.Seq2[LogChunk, error]

	// TaskMetrics returns what a task's attempt used, sampled while it ran, and
	// what its agent counted. CodeNotFound for an attempt that there isn't.
	TaskMetrics(ctx context.Context, id string, query MetricsQuery) (TaskMetrics, error)

	// CancelTask stores that a task is to be cancelled. It returns at once;
	// WatchTask tells when it has ended. On an ended task it does nothing.
	CancelTask(ctx context.Context, id string) (Task, error)

	// SubmitArray stores an array with all its tasks, or none of them. The same
	// key gives the same array. Errors are those of SubmitTask.
	SubmitArray(ctx context.Context, submission ArraySubmission) (Array, error)

	// Array returns an array by its id. CodeNotFound when there is none.
	Array(ctx context.Context, id string) (Array, error)

	// Arrays lists arrays, newest first.
	Arrays(ctx context.Context, query ArrayQuery) (ArrayPage, error)

	// WatchArray yields the array as it is and then when the states of its tasks
	// have changed, until all of them have ended.
	WatchArray(ctx context.Context, id string) iter.Seq2[Array, error]

	// CancelArray stores that all tasks of an array are to be cancelled. It
	// returns at once; WatchArray tells when they have ended.
	CancelArray(ctx context.Context, id string) (Array, error)

	// RetryArray submits those tasks of an array again that have ended in another
	// way than well, as a new array; the same key gives the same one.
	// CodeConflict while tasks of the array have not ended, and when none failed.
	RetryArray(ctx context.Context, id, key string) (Array, error)

	// StartRun checks a workflow, fixes the packages that it uses, stores its run
	// and begins it. The same key gives the same run. CodeInvalid, with all that
	// was found, for a program that can't run, and nothing stored.
	StartRun(ctx context.Context, submission RunSubmission) (Run, error)

	// Run returns a run by its id. CodeNotFound when there is none.
	Run(ctx context.Context, id string) (Run, error)

	// Runs lists runs, newest first.
	Runs(ctx context.Context, query RunQuery) (RunPage, error)

	// WatchRun yields the run as it is and then each time that it changed, until
	// it has ended. Changes in quick succession may be yielded as one.
	WatchRun(ctx context.Context, id string) iter.Seq2[Run, error]

	// RunCalls yields the calls of a run in the order in which they began; with
	// follow each once more that has changed, until the run has ended. A call's
	// key says which it is.
	RunCalls(ctx context.Context, id string, follow bool) iter.Seq2[RunCall, error]

	// CancelRun stores that a run is to be cancelled, with its tasks. It returns
	// at once; WatchRun tells when it has ended.
	CancelRun(ctx context.Context, id string) (Run, error)

	// ResumeRun goes on with a run that failed or was cancelled: calls that ended
	// well are not done again, also with an edited program, as far as it does
	// what the run did. CodeConflict for one that has not ended, or ended well.
	ResumeRun(ctx context.Context, resumption RunResumption) (Run, error)

	// Cache lists what calls gave that are answered again, newest first.
	Cache(ctx context.Context, query CacheQuery) (CachePage, error)

	// ClearCache forgets those that Cache would list, and returns how many.
	ClearCache(ctx context.Context, query CacheQuery) (int, error)

	// CreateSchedule stores what is to be started again and again, having looked
	// whether it could be now. CodeConflict when the caller has one of that name.
	CreateSchedule(ctx context.Context, schedule Schedule) (Schedule, error)

	// Schedules lists the schedules that the caller may see, by name.
	Schedules(ctx context.Context) ([]Schedule, error)

	// PauseSchedule has a schedule pause, or go on: with the next time at which
	// it is due, whatever passed meanwhile. An admin names another's OWNER/NAME.
	PauseSchedule(ctx context.Context, name string, paused bool) (Schedule, error)

	// DeleteSchedule deletes a schedule; what it started goes on.
	DeleteSchedule(ctx context.Context, name string) error

	// CreateCluster stores a compute cluster and begins to start it. The same key
	// gives the same cluster, and with Reuse the same name. CodeConflict when the
	// caller has another of that name that has not ended; an error with a Diagnosis
	// where the infrastructure would never take its pods, with nothing stored.
	CreateCluster(ctx context.Context, submission ClusterSubmission) (Cluster, error)

	// Cluster returns a cluster by its id or its name; of several of a name that of
	// the caller, and then the newest. CodeNotFound when there is none.
	Cluster(ctx context.Context, idOrName string) (Cluster, error)

	// Clusters lists clusters, newest first.
	Clusters(ctx context.Context, query ClusterQuery) (ClusterPage, error)

	// WatchCluster yields the cluster as it is and then each time that it changed,
	// until it has ended. Changes in quick succession may be yielded as one.
	WatchCluster(ctx context.Context, idOrName string) iter.Seq2[Cluster, error]

	// ScaleCluster says how many workers a group has from now on. Workers that are
	// too many finish what they compute, and what they hold goes to others, before
	// they end. CodeConflict for a cluster that ends or has ended.
	ScaleCluster(ctx context.Context, scale ClusterScale) (Cluster, error)

	// DeleteCluster ends a cluster with all that it has. It returns at once;
	// WatchCluster tells when nothing is left. On one that has ended it does nothing.
	DeleteCluster(ctx context.Context, idOrName string) (Cluster, error)

	// ClusterAccess returns the key pair by which clients of the engine connect.
	// It is for those who may cancel the cluster's tasks. CodeUnavailable while it
	// has none yet.
	ClusterAccess(ctx context.Context, idOrName string) (ClusterAccess, error)

	// DialCluster connects to the head of a cluster: bytes are passed as they are.
	// The connection outlives ctx, and may have no deadlines. CodeUnavailable while
	// the head can't be reached.
	DialCluster(ctx context.Context, idOrName string, port ClusterPort) (net.Conn, error)

	// Package returns a package as an infrastructure would run it; the newest
	// version for an empty one, the default infrastructure for no name.
	// CodeNotFound when it is neither in this Berth's own registry nor in the
	// infrastructure's.
	Package(ctx context.Context, infrastructure, name, version string) (Package, error)

	// ListData yields a file, or the entries of a directory by name, on the
	// filesystem that the tasks of an infrastructure share; with Recursive all
	// that is below it. Like the three that follow it is for those who may run
	// tasks there, and starts a task, named data, where none serves the
	// filesystem yet. CodeInvalid for an infrastructure without one, and an error
	// with a Diagnosis where that task doesn't start.
	ListData(ctx context.Context, query DataQuery) iter.Seq2[DataEntry, error]

	// GetData yields what a file holds, or with Recursive a directory as a tar
	// archive. Only what ends with a chunk that has an End is whole.
	GetData(ctx context.Context, query DataQuery) iter.Seq2[DataChunk, error]

	// PutData writes a file, in place of one that is there, or a new directory:
	// whole or not at all. CodeConflict for a directory that exists,
	// CodeExhausted where there is no space.
	PutData(ctx context.Context, put DataPut) (DataEntry, error)

	// RemoveData removes a file or an empty directory, or with Recursive a
	// directory with all that is in it.
	RemoveData(ctx context.Context, query DataQuery) error

	// Infrastructures lists the entries of infra.yml and how they stand.
	Infrastructures(ctx context.Context) ([]Infrastructure, error)

	// CheckInfrastructure connects and compares what is granted with what is needed.
	CheckInfrastructure(ctx context.Context, name string) (InfrastructureCheck, error)

	// AddInfrastructure writes an entry into infra.yml. CodeConflict when the name is taken.
	AddInfrastructure(ctx context.Context, source InfrastructureSource) error

	// FormatDFS makes the volume of an infrastructure's mount_dfs, once.
	// CodeConflict where there is one already: nothing of it is touched.
	FormatDFS(ctx context.Context, format DFSFormat) (DFSVolume, error)

	// RemoveInfrastructure takes an entry out of infra.yml. CodeConflict when
	// tasks of it live, unless forced.
	RemoveInfrastructure(ctx context.Context, name string, force bool) error

	// CreateToken makes a token for a server, and tells its secret this once.
	// Unrestricted admins alone; so are the two that follow.
	CreateToken(ctx context.Context, request TokenRequest) (Token, error)

	// Tokens lists the tokens that aren't revoked, those that have expired
	// among them, oldest first.
	Tokens(ctx context.Context) ([]Token, error)

	// RevokeToken makes a token by its id, or all tokens of a name, worthless
	// at once. CodeNotFound when there never was one.
	RevokeToken(ctx context.Context, idOrName string) error

	// Close ends the use of the service. Tasks go on.
	Close() error
}

// LogStream is what a program wrote a line to.
type LogStream string

const (
	LogUnknown LogStream = "" // a cluster mixes both where no agent runs
	LogStdout  LogStream = "stdout"
	LogStderr  LogStream = "stderr"
)

// LogQuery selects output of a task.
type LogQuery struct {
	Attempt    int       // 0: the last
	Offset     int64     // in bytes of the stored log: where a cut read goes on
	Follow     bool      // until the log is complete
	Tail       int       // the last lines only, of those that are selected; 0: all
	Step       int       // output of that step only, from 1 on; 0: all
	Stream     LogStream // output to that stream only; where it is unknown it counts as stdout
	Since      time.Time // lines of that time and later ones
	Grep       string    // lines that match this regular expression (RE2) only; CodeInvalid where it is none
	Timestamps bool      // each line begins with its RFC 3339 time in nanoseconds
}

// LogChunk is a piece of output, or says that output is missing.
type LogChunk struct {
	Attempt int
	Stream  LogStream // that all of Data was written to
	Data    []byte    // whole lines, but for the end of output that has no newline, and lines longer than 1 MiB, which come in pieces
	Offset  int64     // of the stored log after this chunk
	Gap     string    // not empty: output is missing here; from when to when, and why
}
