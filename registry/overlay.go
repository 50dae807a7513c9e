package registry

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"grindstone/internal/externaldata"
)

// The archives of a package are extracted one over the other. What takes the place of a model or of its external data after that, by the same name, by
// another that leads there, or over a link, would bring back what was pushed. So each of them has to be there once.

const (
	maxLinks    = 1 << 17 // in the archives of a package
	maxFollowed = 1 << 8  // links that a name may lead over, in all the ways there are

	maxTarget = 1 << 12 // bytes of where a link leads to

	whiteout = ".wh." // begins the names of entries that delete others, in images
	opaque   = ".wh..wh..opq"
)

// overlay is the tree of files that archives make.
type overlay struct {
	kept   map[string]bool     // the models and their external data, by their places; true once they are there
	above  map[string]bool     // the folders of these
	apart  map[string]bool     // the models that have external data
	links  map[string][]string // where links lead to, by their places
	linked int
}

func newOverlay() *overlay {
	return &overlay{map[string]bool{}, map[string]bool{"": true}, map[string]bool{}, map[string][]string{}, 0}
}

// overlaid returns what prevents that the models in archives are replaced for good: archives are all of a package, in the order in which they are
// extracted, and open reads one.
func overlaid(files []layerFile, archives []digest.Digest, open func(digest.Digest, func(archive io.Reader, budget int64) error) error) (problem string, err error) {
	models := map[digest.Digest]map[string]bool{} // by archive
	for _, f := range files {
		if f.model && f.layer != "" {
			if models[f.layer] == nil {
				models[f.layer] = map[string]bool{}
			}
			models[f.layer][f.Name] = true
		}
	}
	if len(models) == 0 {
		return "", nil
	}
	o := newOverlay()
	for _, layer := range archives {
		if models[layer] == nil {
			continue
		}
		if err := open(layer, func(archive io.Reader, budget int64) error { return o.keep(archive, budget, models[layer]) }); err != nil {
			return archiveProblem(layer, err)
		}
	}
	for _, layer := range archives {
		if err := open(layer, o.extract); err != nil {
			return archiveProblem(layer, err)
		}
	}
	return "", nil
}

// archiveProblem says what is wrong with an archive. Errors that are not of the archive itself are returned.
func archiveProblem(layer digest.Digest, err error) (string, error) {
	var reason errArchive
	switch {
	case errors.As(err, &reason):
		return fmt.Sprintf("layer %s has a model in it or comes with one: %s", layer, reason), nil
	case errors.Is(err, errTooLarge):
		return fmt.Sprintf("layer %s is too large to be looked through", layer), nil
	}
	return "", err
}

// place is how names are compared: from the root, and so that those are equal that are the same file on some system.
func place(name string) string {
	return strings.TrimPrefix(path.Clean("/"+strings.ToLower(strings.ReplaceAll(name, `\`, "/"))), "/")
}

// keep notes the models of an archive, and the files that they name.
func (o *overlay) keep(archive io.Reader, budget int64, models map[string]bool) error {
	return walkArchive(archive, budget, func(name string, h *tar.Header, content io.Reader) error {
		if !isFile(h) || !models[name] {
			return nil
		}
		locations, err := externaldata.Locations(content, h.Size)
		if err != nil {
			return errArchive(fmt.Sprintf("the model %.200q cannot be read: %v", name, err))
		}
		o.apart[place(name)] = o.apart[place(name)] || len(locations) > 0
		for _, file := range append(locations, path.Base(name)) {
			file = place(path.Join(path.Dir(name), file))
			o.kept[file] = false
			for dir := range folders(file) {
				o.above[dir] = true
			}
		}
		return nil
	})
}

// extract follows an archive as it is extracted over others. It fails with an errArchive if a kept file could be another one then.
func (o *overlay) extract(archive io.Reader, budget int64) error {
	return walkArchive(archive, budget, func(_ string, h *tar.Header, _ io.Reader) error {
		if h.Typeflag == tar.TypeXGlobalHeader {
			return nil
		}
		name := strings.ToLower(strings.ReplaceAll(h.Name, `\`, "/"))
		places, err := o.follow(name, false)
		if err == nil {
			places = append(places, place(name))
			err = o.put(h, places)
		}
		if reason := errArchive(""); errors.As(err, &reason) {
			return errArchive(fmt.Sprintf("%.200q in it %s", h.Name, reason))
		}
		return err
	})
}

// put notes an entry in the places where it may be.
func (o *overlay) put(h *tar.Header, places []string) error {
	for _, at := range places {
		dir, base := path.Split(at)
		dir = strings.TrimSuffix(dir, "/")
		there, kept := o.kept[at]
		switch {
		case base == opaque && o.above[dir], base != opaque && strings.HasPrefix(base, whiteout) && o.holds(path.Join(dir, base[len(whiteout):])):
			return errArchive("deletes a model, its external data or their folder: have them in the last layer only")
		case kept && (there || !isFile(h)):
			return errArchive("takes the place of a model or of its external data: have each of them once in all the layers, and as a file")
		case o.above[at] && h.Typeflag != tar.TypeDir:
			return errArchive("takes the place of the folder of a model: have no link or file there")
		case isFile(h) && o.linksToKept(at):
			return errArchive("is written over a link to a model or to its external data: have no link there")
		}
	}
	for _, at := range places {
		if _, kept := o.kept[at]; kept {
			o.kept[at] = true
		}
		if h.Typeflag == tar.TypeLink || h.Typeflag == tar.TypeSymlink {
			if err := o.link(at, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// linksToKept reports whether a link that was seen at a place may lead to a kept file: some programs write into that.
func (o *overlay) linksToKept(at string) bool {
	if len(o.links[at]) == 0 {
		return false
	}
	leads, err := o.follow(at, true)
	return err != nil || slices.ContainsFunc(leads, o.holds)
}

// holds reports whether something that is kept is at a place or below.
func (o *overlay) holds(at string) bool {
	_, kept := o.kept[at]
	return kept || o.above[at]
}

// link notes a link. A model looks for its external data beside the name that it is loaded by: by a link in another folder it would find others.
func (o *overlay) link(at string, h *tar.Header) error {
	if o.linked++; o.linked > maxLinks {
		return errTooLarge
	}
	if len(h.Linkname) > maxTarget {
		return nil // no system follows it
	}
	target := strings.ToLower(h.Linkname)
	if h.Typeflag == tar.TypeLink { // from the root, and not from its own folder
		target = "/" + target
	}
	o.links[at] = append(o.links[at], target)
	leads, err := o.follow(at, true)
	if err != nil {
		return err
	}
	for _, to := range leads {
		if o.apart[to] && path.Dir(to) != path.Dir(at) {
			return errArchive("is a link to a model with external data from another folder: have the model there only")
		}
	}
	return nil
}

// follow returns the places that a name may lead to over links that were seen, the last part of the name among them if that is asked for. A link may
// have been replaced by a folder again, so both are followed.
func (o *overlay) follow(name string, last bool) ([]string, error) {
	var places []string
	steps := 0
	followed := map[[2]string]bool{}
	var walk func(at, rest string)
	walk = func(at, rest string) {
		steps++
		for rest != "" && steps <= maxFollowed {
			part, more, _ := strings.Cut(rest, "/")
			rest = more
			switch part {
			case "", ".":
				continue
			case "..":
				at = place(at + "/..")
				continue
			}
			next := strings.TrimPrefix(at+"/"+part, "/")
			link := [2]string{next, rest}
			if targets := o.links[next]; len(targets) > 0 && (rest != "" || last) && !followed[link] { // else it leads to itself, and nowhere
				followed[link] = true
				for _, target := range targets {
					if steps > maxFollowed {
						return
					}
					if strings.HasPrefix(target, "/") {
						walk("", target+"/"+rest)
					} else {
						walk(at, target+"/"+rest)
					}
				}
				delete(followed, link)
			}
			at = next
		}
		places = append(places, at)
	}
	walk("", name)
	if steps > maxFollowed {
		return nil, errArchive("leads over too many links: have fewer of them")
	}
	return places, nil
}
