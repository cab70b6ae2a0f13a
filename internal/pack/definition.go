// Package pack reads container.yml, the description of a package: the typed
// functions that it offers and how its image is built. Text comes in, a
// Definition goes out; what it doesn't know is an error with line and column.
// It builds nothing.
package pack

import "github.com/berth-run/berth"

// WorkDir is where the files of a package are in its image, and where its
// program runs: where Brane puts them.
const WorkDir = "/opt/wd"

// DefaultBase is what Brane builds upon where a container.yml names no base.
const DefaultBase = "docker.io/library/ubuntu:20.04"

// Definition is a container.yml.
type Definition struct {
	Package berth.Package // what the image offers; defaults are filled in

	Path         string         // of the container.yml, as errors call it
	Dir          string         // where it is; Files are relative to it
	Base         string         // image to build upon; empty: it named none, which is DefaultBase where nothing else is said
	Dependencies []string       // packages of the base image's distribution: apk for alpine, else apt
	Environment  []berth.EnvVar // of the image, in order; $NAME and ${NAME} in a value stand for what is set before, as in a Dockerfile
	Files        []File         // copied into Package.WorkDir; the program of the entrypoint is made executable
	Install      []Line         // shell commands of the build, before Files are there, in the base image's working directory
	Unpack       []Line         // shell commands of the build, after, in Package.WorkDir

	// Warnings are about what was understood and has no effect here, each with
	// its position.
	Warnings []string
}

// File is a file or a folder of the package.
type File struct {
	Path string // slash-separated, clean, relative to Dir, inside of it; "." is all of it
	Line int    // in container.yml
}

// Line is a command of container.yml and where it is.
type Line struct {
	Text string
	Line int // in container.yml
}

// NeedsRun reports whether the image can only be built by running commands.
func (d *Definition) NeedsRun() bool {
	return len(d.Dependencies) > 0 || len(d.Install) > 0 || len(d.Unpack) > 0
}
