# bash completion for llmrun. Made by tools/manual.py.

_llmrun_completion() {
    # Bash also breaks words at ':' and '=', which llmrun does not: join what no blank stands between.
    local rest=${COMP_LINE:0:COMP_POINT} words=() i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i == 0)) || [[ $rest == [[:blank:]]* ]]; then
            rest=${rest#"${rest%%[![:blank:]]*}"}
            words+=("")
        fi
        if ((i == COMP_CWORD)); then
            words[-1]+=$rest
        else
            words[-1]+=${COMP_WORDS[i]}
            rest=${rest#"${COMP_WORDS[i]}"}
        fi
    done

    # Readline keeps what stands before the last break, and replaces the rest.
    local word=${words[-1]#--*=} kept=""
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        kept=${word%:*}:
    fi

    local IFS=$'\n'
    COMPREPLY=($(
        COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) _LLMRUN_COMPLETE=complete_bash "$1" 2>/dev/null
    ))
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

complete -o default -F _llmrun_completion llmrun
