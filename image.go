package berth

import (
	"fmt"
	"regexp"
	"strings"
)

// The grammar of image references, after the distribution project's reference
// package: [domain[:port]/]path[:tag][@digest].
var (
	imageComponent = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	imageDomain    = `(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	imagePattern   = regexp.MustCompile(`^(?:` + imageDomain + `/)?` + imageComponent + `(?:/` + imageComponent + `)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`)
)

// LoadedRegistry stands where other images have their registry in the names of
// images that are loaded into a cluster or Docker Engine, and pulled from nowhere.
const LoadedRegistry = "berth.local"

// ImageIsLoaded reports whether an image is there only where it was loaded.
func ImageIsLoaded(image string) bool { return strings.HasPrefix(image, LoadedRegistry+"/") }

// ValidateImage reports what is wrong with an image reference, or nil.
func ValidateImage(image string) error {
	switch {
	case image == "":
		return fmt.Errorf("no image was given; name one such as docker.io/library/busybox:1.35")
	case len(image) > 1024:
		return fmt.Errorf("the image name is %d characters long; at most 1024 are possible", len(image))
	}
	// Before the pattern, which would take a first word in capitals for a
	// domain; container runtimes do not.
	if path := imagePath(image); path != strings.ToLower(path) {
		return fmt.Errorf("image %q: a repository name must be lower case; try %q", image, strings.Replace(image, path, strings.ToLower(path), 1))
	}
	if imagePattern.MatchString(image) {
		return nil
	}
	return fmt.Errorf("image %q is not an image reference; write [REGISTRY/]NAME[:TAG] or NAME@sha256:DIGEST", image)
}

// imagePath returns the repository path of a reference, without domain, tag
// and digest. As everywhere, a first component is a domain when it has a dot
// or a colon, or is localhost.
func imagePath(image string) string {
	path, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndex(path, ":"); i > strings.LastIndex(path, "/") {
		path = path[:i]
	}
	if domain, rest, found := strings.Cut(path, "/"); found && (strings.ContainsAny(domain, ".:") || domain == "localhost") {
		path = rest
	}
	return path
}

// ImageIsLatest reports whether an image is named by the tag latest, given or
// implied, for which the default pull policy is always.
func ImageIsLatest(image string) bool {
	if strings.Contains(image, "@") {
		return false
	}
	i := strings.LastIndex(image, ":")
	return i <= strings.LastIndex(image, "/") || image[i+1:] == "latest"
}
