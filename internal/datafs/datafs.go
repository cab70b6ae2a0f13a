// Package datafs is what the control plane and the server of a shared
// filesystem, inside a pod, say to each other: HTTP/1.1 with a bearer token, on
// the pod's own loopback, which is reached by port-forwarding. It has both
// ends, and how directories are packed. It knows files, and no clusters.
//
//	GET    /v1/health
//	GET    /v1/entries?path=P[&recursive=true]   lines of JSON, then a trailer
//	GET    /v1/content?path=P[&recursive=true]   bytes, or a tar; size and SHA-256 as trailers
//	PUT    /v1/content?path=P&...                bytes, or a tar, with their SHA-256 as a trailer
//	DELETE /v1/content?path=P[&recursive=true]
//
// Paths are relative to the root that is served. What is refused is answered
// with a code of package berth and a text for a person.
package datafs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/berth-run/berth"
)

// Names of the protocol. Images keep the agent that they were built with, so
// they are only ever added to.
const (
	healthPath  = "/v1/health"
	entriesPath = "/v1/entries"
	contentPath = "/v1/content"

	entryHeader   = "Berth-Entry"   // JSON of what is read
	sumTrailer    = "Berth-Sha256"  // of the whole body, in hexadecimal
	skippedHeader = "Berth-Skipped" // what a tar leaves out
	failedTrailer = "Berth-Failed"  // JSON of what went wrong after the body had begun
)

// Port is where the server in a pod listens, on loopback.
const Port = 7331

// TokenSum is what a server is given of its token: who sees the pod's
// definition can't make a token of it.
func TokenSum(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// refusal is an error as it is sent.
type refusal struct {
	Code    berth.ErrorCode `json:"code"`
	Message string          `json:"message"`
}

var statuses = map[berth.ErrorCode]int{
	berth.CodeInvalid: http.StatusBadRequest, berth.CodeNotFound: http.StatusNotFound, berth.CodeConflict: http.StatusConflict, berth.CodeUnauthorized: http.StatusUnauthorized,
	berth.CodeForbidden: http.StatusForbidden, berth.CodeUnavailable: http.StatusServiceUnavailable, berth.CodeExhausted: http.StatusInsufficientStorage,
}

// explained puts an error of the filesystem into words. Seen is the path as
// tasks see it.
func explained(seen string, err error) error {
	var told *berth.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return berth.Errorf(berth.CodeNotFound, "there is no %s", seen)
	case errors.Is(err, syscall.EROFS):
		return berth.Errorf(berth.CodeForbidden, "%s: the filesystem is mounted read-only", seen)
	case errors.Is(err, fs.ErrPermission):
		return berth.Errorf(berth.CodeForbidden, "%s: permission denied: the pod that serves the filesystem runs as another user than the one that it belongs to (berth data ls -l), and without root's privileges", seen)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return berth.Errorf(berth.CodeExhausted, "%s: no space is left on the shared filesystem", seen)
	case errors.Is(err, syscall.ENOTEMPTY):
		return berth.Errorf(berth.CodeConflict, "%s: the directory is not empty", seen)
	case errors.Is(err, syscall.ENOTDIR):
		return berth.Errorf(berth.CodeInvalid, "%s: a part of that path is no directory", seen)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return berth.Errorf(berth.CodeInvalid, "%s: the name is too long for the filesystem", seen)
	case errors.Is(err, syscall.ELOOP):
		return berth.Errorf(berth.CodeInvalid, "%s: too many symlinks", seen)
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		return berth.Errorf(berth.CodeUnavailable, "%s: the shared filesystem does not work in the pod that serves it (%w)", seen, err)
	case strings.HasSuffix(err.Error(), "path escapes from parent"): // of os.Root, which has no error of its own for it
		return berth.Errorf(berth.CodeForbidden, "%s: a symlink there leads out of the shared filesystem (absolute ones count as such), and is not followed", seen)
	}
	return berth.Errorf(berth.CodeInternal, "%s: %w", seen, err)
}
