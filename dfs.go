package berth

// DFS is the filesystem that the tasks of an infrastructure share (mount_dfs):
// JuiceFS, whose metadata is at URL, or a PersistentVolumeClaim of the namespace.
type DFS struct {
	URL   Secret // redis://..., of JuiceFS; empty with a claim
	Claim string // the name of a PersistentVolumeClaim; empty with a URL

	Path     string // where a task's own container has it
	ReadOnly bool
	KeepWork KeepWork
	User     string // UID or UID:GID that berth data reaches it as; empty: root, where the namespace allows that
	Image    string // that has the JuiceFS client
}

// DFSFormat says how the volume of an infrastructure's mount_dfs is made.
type DFSFormat struct {
	Infrastructure string // may be empty where there is one with such a mount
	Volume         string // its name; default the infrastructure's
	Storage        string // that holds the blocks: s3, minio, redis and what else JuiceFS knows; empty: the Redis of the metadata, its next database
	Bucket         string // of the storage: a URL
	AccessKey      string
	SecretKey      Secret
	Capacity       Quantity // GiB are counted; empty: no limit
	Inodes         int64    // files and directories; 0: no limit
}

// DFSVolume is a volume that was made.
type DFSVolume struct {
	Infrastructure string `json:"infrastructure"`
	Name           string `json:"name"`
	Address        string `json:"address"` // of the metadata, without a password
	Storage        string `json:"storage"`
	Bucket         string `json:"bucket"`
}

// Where a shared filesystem is mounted, and what mounts it, unless infra.yml
// says otherwise.
const (
	DefaultDFSPath  = "/data"
	DefaultDFSImage = "docker.io/juicedata/mount:ce-v1.4.1"
)

// DFSWork is where the tasks of an infrastructure have their working folders
// (BERTH_WORK), below the mount.
const DFSWork = ".berth/work"

// KeepWork says when the working folder of a task (BERTH_WORK) is kept after its
// end. One that a result of type File or Directory lies in always is.
type KeepWork string

const (
	KeepFailed KeepWork = "failed" // of tasks that didn't succeed: the default
	KeepAlways KeepWork = "always"
	KeepNever  KeepWork = "never"
)
