"""A repository whose refs are in reftables, made without a git that can write them (git 2.45 and later can).

The tables were written by git 2.55, which this script ran once with HASH=sha1 and once with HASH=sha256; names and
dates are those of ENVIRONMENT in test_repository.py, so that any git makes commits and tags of the same hashes.

    git init -q -b main --object-format=$HASH --ref-format=reftable r && cd r
    printf 1 > a.py; git add -A; git commit -q -m m; git tag -a -m annotated v1
    git update-ref refs/remotes/origin/main HEAD
    git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main
    git branch gone
    for n in $(seq 150); do echo "create refs/heads/topic/$n HEAD"; done | git update-ref --stdin
    git update-ref refs/heads/$(printf 'x%.0s' $(seq 180)) HEAD
    git pack-refs; git branch -D -q gone
    git worktree add -q --detach ../w; git -C ../w update-ref refs/bisect/bad HEAD
"""

from __future__ import annotations

import base64
import shutil
import zlib
from pathlib import Path

from tests.index.files.test_repository import git, write

HASHES = ("sha1", "sha256")
LONG_NAME = "x" * 180
TOPICS = 150

TABLES: dict[str, dict[str, str]] = {  # path below the git dir -> bytes, as base85 of zlib
    "sha1": {
        "reftable/0x000000000001-0x000000000008-b34a5806.ref": (
            "c-jkcbqir+5MY1;Mkviu#K0fLpzPu5=)%BXl$utopOKoFQmmhwn3=~=i6oGopO?ydlG`Zr*Oprn)nCqh`Fn_YLBO})tlWwqwTxJ$"
            "EKBkWGL!WU*|5n9aT;J17se@Wh(p{6hqy5gaT6TkrZ~jSaEP1Z5Vyb~Ziyotu=|UlK@lnZp&@BF(!$1QP^A&9abh%3VPia+f534f"
            "i5Vv*qd@~sBBmsTgAfk)2;p##5DxcXjS}om6vPq4LO7jhNK#3GE0+l2h$>t`My;R`;=~mW#xxBFY*Au7RD#B2SSAr{QDQ=B(3p<q"
            "9&k9AQ6(I(MTyx^4;u3!okXxji8-}`#$q)0fWyI(q;S9%C6>c8Xc!n|7#NHh7&kF6yD_lbVqnW<;9y|joXo(j#=x_afzOA5n_)<R"
            "A_m4-hA!kDeZ>$2?AYRnwL!WlH8;N`wOBvDC^J1XPaia#!6E_nE1C>wtU?4lV!@2nD65jh^kV%oL#FpW^Oya&wXW!Gn`07RK<T2C"
            "RH+*53511#F`a?`Va2WF6JH8SOA>$ZGuBIPXqbG*ZRY-McP6d)SM==kedjaWO#A+(J@qZ|SnF{{_k`!w)B0ZSPq(hKyT@=vZPJ|i"
            "vu8&xS}<|u^vFpwXDrTKI^p!u3lAcu%nDmGf8wkeL2KsEn?Idv^DlMLwbQ(`yv}%^+YnTs=jE&8=^N;wed>JZ3Ewkk9zQzA5?JzC"
            "znnSQv(7PX(>}#Br{qJnOq%GeaiPJCjr;Ps1m`Hp92f28-pteuoNIZ^mQFpGw#DeioG`ZN3#Ssiqf#@aQU%)De3onykJ6FsOZ$8="
            "$8OeHcBR?Uz1Qw6j+`~a=vIcwZ2pHic{a1ox^K4Jo0Z4LCdSs5#CGjF&z;GV5ez<aA36g=;~g+GGEV4t`D$M~@8RpCc}@SM{t2IJ"
            "<|byzz~Hf$ASrl`olup@@Y8PA%}Cv#n#&``WwLN;H!qN*2=v0DsRxg3F`AJ!G2KhM*?qIg+s!7uO8tz{lDSz9+VL|ko=PYN`q@#t"
            "Ide)7OJ?XJPS#60p%Rx)CCp-N{V1?{XJ%MkPg>@!^vt$4j~=626(*DW(>`7Fv77TMce3KNrIHd65)t7B1-}gpm>GI*JUayR+*^?6"
            "JTN_Hm_nA{L^5#4$SnySkKHGX7fe04II`+QS|*#0>z0=pddq9|%%#shUA(hq%Og3z$Xj#jT(|tp(31xXDHQEInsJm@cRI-F(~S$N"
            "4S`PI&hxAyoq=N!cBgMQNFvkeKHAN`z?jekI(_lfgU^6YZvr~~(y;``C`lcW3<vFI-ptew8Pnu8Mb2XM7R<Grb$TINad~POk0S$j"
            "&-)Nwp0I$RlV|lkb+4V*Kjm}&%;oREJk)seYxk<M&Xi|rY0nOx`R99A<@|v|2X@VA<YbVDb5Y1-V8~)<$iVDk8k;iwhkzdoV+A8j"
            "4B*_w*@6)khH&mu57veREJXuM!SChF;EWxFW7HIXSt}R|p+(NL+<hkp06Inzlm"
        ),
        "reftable/0x000000000009-0x000000000009-4595c8d1.ref": (
            "c-jkcbqir+5MY1;P8eOpz+lW!QIwiite=sZm{P2to}ZTrl#pRyOlM$FskoJ#QJ~@Ft9|Xfhp&(3HUIPHy;FbiGulf^L`X<5KKQ{`"
            "5`@EK2K>Mn#?YPfs~-S-j~b%"
        ),
        "worktrees/w/reftable/0x000000000001-0x000000000003-27e2f460.ref": (
            "c-jkcbqir+5MY1;Mkvi(#K6$Opy=W1=)!Q4+bHwbmRl0lU(S5_dx&{Kz_;J544(c$p6>A=c}A@Al|`v(#rjE^#i_|9`bmi?OjuPh"
            "$S^RNGcbfRFsCyxq*mNYKJlfXv?TEdKjVLi4Goj;xXs+Z?arhX|B9ZSzVCd7n`z(Qw5Pr$9&0_$=$`PrdRpJh{pr?qcJ~;r96NFJ"
            "z=1;tI2fM%S7Hdl;U@<CpaaH8$SJx90A8nF76"
        ),
    },
    "sha256": {
        "reftable/0x000000000001-0x000000000008-771d6de2.ref": (
            "c-jkcbqir)5MY1;MkviuY-DOy#K8Z8LD|FA(S?D(C^fBEKO;3UrC2{VF*A>$5=kIEKQEQlygF3<#Odpm4T5!sPhQ4Pdg!(K%i5Ub"
            "%pbF|@8++0F3YV5(#J?pnPo|SL1wbPAsZo;LYxK!)d&-%#*hd#MntGFCPIw~5o%0{P-8}f8gnAlSP-Gcl8Cq<9EJ=Hib!b&8q0>G"
            "@k5{ZF&dV61#6lz8jA5_JX)3wlDJ@Kki<+=CZo|aXtIhaRpLU32!9C?;V&T~{Dn115%#Je5lKOaD6bk)rG_A;loBE$*%1?k^o$-M"
            "PGaK1cu>U!wj^adlB36DG^<b;7ub@N3ALifbToSCQPD6cFff=iFl8~Y>|<aTV&F_=;NHQ&$IZaOfCCgUaA1viQ(_|3Y&22_P5Ea&"
            "=&L95ksLi1qgjOp)sqFaqQ`PHdIm{W;qFqb7=nPEkiS?Pq>EB>^Gi~T_4A7|(=+q*K?Cb765uqACIcEN7Xgo#GZV}eNnis?64Q(I"
            "%M6*$)VvaV@Ic32o9R2xjf3;!f*F-~3rbCr?|x6%Cw^9xop1w!g@GxYfn^l~`vC@)bO!$E6}OU4d?_d`N&LajSTD)J@cC81SK;OB"
            "!_7FZN!nFP+P_?Q{gr-p@-*Z6GpF{=-v4Z;PW~e2EZ3wwN555Zb%9n|>r20WWLqGpbn@rUoikOrq-IvmRGryrIV+57XABQ-pX<uZ"
            "qrW6qc4{8|_3~%sN(1%3OPVJynbalpd6MxOkvZK#!rno_BA2>86^j-L8-L!h!`SgkLpy&tbFychW7?*Dif1(KUpx?T(_84k{3}Ys"
            "r=FYlW$r@3y}BmLwzsN%*>+*dJ+WCAZ#xxNMQ1qXbL+m0-Ez_Lv9U>t($&HXkM0y~*&(g_&aHd*#YcVLj?TT9;hnc7L;8uU^fjwX"
            "89T(wd3bbqc<%DN`N>l=Su%pb&C!n)7%F>#p^|Yz$IDmy+IbIOAI)p}C-qPGTr)Q@N(Tm$y#)Ee)Dv^4Q4HwnN&CdOSfwuCZf65>"
            "CfpN~0(xQB@r9f~e=XhKn)YQ|!Iq50RTtBY&UBlx<&-WtnNesSb*ERXTzSI|W7%g%=L+l%UWtqq_GWXpwYl_IUFvwpc^zotCF?1Y"
            "5fV2{C4SUM%wSBK94QL)*lv)=JTN_Glt!_?oEovkM)tx4g}a+u8G-&<vc1&}>@R8ETOL~`FnWt-+Whgho_z6A-j*%Wx^La2iw>{P"
            "FqYN5l@aect8ZG_6~0t9F}AW&HamT`G=}Vyh-RP<cH!`WX(|<b01WpFbMA>nUAXP!4NPnv|1C@wY;SD?igo~_=<;nR;i_nhs4cx>"
            "xhhd7E(ml6y3XnsD_h)pHzUzJ>IU!rvN=aHE}BJcnHc4qRHmfs=53wTZp6&ZyxWR-zB;op!{WCQ(di5v_1OKe-5{L`et@N}OSheX"
            "Sq2yn9{Jq8FLD<e0;6Ez_SR)U>7ILHePX#G+a~PR-kik26roVN+*@H|Q`XHpe<oc?`uk_mnJ;H-YWc(6#b-#@T|COm(>v$EEV;9a"
            "J3D7q8npje*6%C<Oj-904Hy{~H2hwj$-q#_(2#*;q~46-KLq?(FDn>fWCZ7KG!~37HGy+C^9V**AQW%$V{J&lQf9&w{N5%6D##dv"
            "@Jwzp-~|%05Lzb1qAdCV0O47^3I"
        ),
        "reftable/0x000000000009-0x000000000009-897e6f59.ref": (
            "c-jkcbqir)5MY1;P8eNmWNKE#z+lc$QIwiite=sZm{P2to}ZTrlvH3~OlM$FskoJ#QJ~@Ft9|Xfhp&(3HUIPHy;FbiGulf^L`X<5"
            "KKQ{`5`@Qe2K>Mr#t1oi#u@;xKOCa"
        ),
        "worktrees/w/reftable/0x000000000001-0x000000000003-a8bc3851.ref": (
            "c-jkcbqir)5MY1;Mkvi(Y-DOy#K5qDLD9q2(S^ahI#m6{>FbpZf^~*ZUdB&)=(YOG+L-0cAG5OW=C64!%i!rB<mny{Qp-qCZDmnv"
            "TCsjoW^rnAiGEUI3KKyc3<?Yk?hFjY49w{a47C-vl23doC@o3+!O!?#f`j4ntAMY<%h!jSaa@zMtCX~Vx$ycc{p{pv#`R}T?VG*-"
            "*-oAOMb25SNqLTbtK#Yct+dvce*MU{K(Hr<hewB}hrvZyJtGKDI56M`8(@rSi5i{&dy;Kl"
        ),
    },
}


def tables_of(hash_name: str) -> dict[str, bytes]:
    """Path below the git dir -> content, oldest table of a stack first."""
    return {path: zlib.decompress(base64.b85decode(text)) for path, text in TABLES[hash_name].items()}


def make_reftable_repo(root: Path, hash_name: str) -> dict[str, str]:
    """Makes `root/r` and its work tree `root/w`; returns the hashes by the names `commit` and `tag`."""
    repo = root / "r"
    repo.mkdir(parents=True)
    git(repo, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    write(repo, {"a.py": "1"})
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "m")
    git(repo, "tag", "-a", "-m", "annotated", "v1")
    git(repo, "worktree", "add", "-q", "--detach", str(root / "w"))
    hashes = {"commit": git(repo, "rev-parse", "HEAD"), "tag": git(repo, "rev-parse", "v1")}
    git(repo, "config", "core.repositoryFormatVersion", "1")
    git(repo, "config", "extensions.refStorage", "reftable")
    for git_dir in (repo / ".git", repo / ".git/worktrees/w"):
        shutil.rmtree(git_dir / "refs", ignore_errors=True)
        write(git_dir, {"HEAD": "ref: refs/heads/.invalid\n", "refs/heads": "this repository uses reftables\n"})
    tables = tables_of(hash_name)
    for stack in ("reftable", "worktrees/w/reftable"):
        names = [path.rpartition("/")[2] for path in tables if path.rpartition("/")[0] == stack]
        write(repo / ".git", {f"{stack}/tables.list": "".join(f"{name}\n" for name in names)})
    write(repo / ".git", dict(tables))
    return hashes
