package berth

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// Blob is a File or Directory that lies in Berth's own registry: what a workflow
// hands from one infrastructure to another that shares no filesystem with it.
// As a value, and as a path of [DataQuery], it is its String.
type Blob struct {
	Digest    string // sha256:HEX of the file's content, or of the directory's tar archive
	Name      string // of the file or directory, without where it was
	Directory bool
}

// FilesRepository is where blobs are in the registry, which is no package.
const FilesRepository = "berth/files"

// blobPrefix begins the values that are no paths but blobs.
const blobPrefix = "blob:"

// String writes a blob as blob:sha256:HEX/NAME, that of a directory with a
// slash at its end.
func (b Blob) String() string {
	text := blobPrefix + b.Digest + "/" + b.Name
	if b.Directory {
		text += "/"
	}
	return text
}

// ParseBlob reads what [Blob.String] writes. It reports whether it is one:
// anything else is a path.
func ParseBlob(text string) (Blob, bool) {
	rest, is := strings.CutPrefix(text, blobPrefix)
	if !is {
		return Blob{}, false
	}
	var b Blob
	if b.Digest, b.Name, is = strings.Cut(rest, "/"); !is || !validDigest(b.Digest) {
		return Blob{}, false
	}
	b.Name, b.Directory = strings.CutSuffix(b.Name, "/")
	if b.Name == "" || b.Name == "." || b.Name == ".." || strings.ContainsAny(b.Name, "/\x00") || !utf8.ValidString(b.Name) || len(b.Name) > 255 {
		return Blob{}, false
	}
	return b, true
}

func validDigest(digest string) bool {
	sum, is := strings.CutPrefix(digest, "sha256:")
	if !is || len(sum) != 64 || strings.ToLower(sum) != sum {
		return false
	}
	_, err := hex.DecodeString(sum)
	return err == nil
}
