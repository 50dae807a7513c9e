package auth

import (
	"regexp"
	"slices"
	"strings"
)

// anonymous is how rules name who has no name.
const anonymous = "anonymous"

// rule is a Rule with its patterns compiled.
type rule struct {
	Rule
	patterns []*regexp.Regexp
}

func newRule(r Rule) rule {
	compiled := rule{Rule: r}
	for _, who := range r.Who {
		text := "^" + strings.ReplaceAll(regexp.QuoteMeta(who), `\*`, `.*`) + "$"
		compiled.patterns = append(compiled.patterns, regexp.MustCompile(text)) // quoted: always compiles
	}
	return compiled
}

// names reports whether the rule is about this identity.
func (r rule) names(id Identity) bool {
	if id.Name == "" {
		return slices.Contains(r.Who, anonymous)
	}
	return slices.ContainsFunc(r.patterns, func(p *regexp.Regexp) bool {
		return p.MatchString(id.Name) && p.String() != "^"+anonymous+"$" || slices.ContainsFunc(id.Groups, p.MatchString)
	})
}
